"""Champions in MLflow: registered without pickles, loaded, and served over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import uvicorn
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from starlette.testclient import TestClient

from retrain_assets import load_forecaster, serving
from retrain_assets.errors import CheckpointError
from retrain_assets.evaluation.versions import NAIVE_VERSION, Version
from retrain_assets.home import Home
from retrain_assets.universe import Stock, Universe
from retrain_assets_tests.installed import LAST_BAR, MONTH
from retrain_assets_tests.ports import free_port
from retrain_assets_tests.promoted import bars_of, promoted_home, untouched
from retrain_assets_tests.servers import served

ROOT = Path(__file__).parents[1]
LOCK = Path("locks") / "requirements.txt"
NAME = "kronos-AAA"
URI = f"models:/{NAME}@champion"
PARAMS = {"horizon": 9, "as_of": LAST_BAR}


@dataclass(frozen=True)
class Registry:
    """An installation with one champion in its MLflow database."""

    home: Home
    uri: str
    client: mlflow.MlflowClient
    run_id: str
    champion: Version
    stock: Stock
    number: int

    def models(self) -> list[Any]:
        """Everything that was logged."""
        experiment = self.client.get_run(self.run_id).info.experiment_id
        return list(self.client.search_logged_models([experiment]))

    def promote(self, version: Version, **changes: Any) -> int:
        return serving.promote(
            self.client, version, self.stock, home=self.home, run_id=self.run_id, **changes
        )


@pytest.fixture(scope="module")
def registry(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    home = promoted_home(tmp_path_factory.mktemp("registry") / "data")
    shutil.copytree(template / "mlflow", home.tracking)
    uri = f"sqlite:///{home.tracking / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    where = client.create_experiment(
        "promotion", artifact_location=(home.tracking / "artifacts").as_uri()
    )
    run_id = client.create_run(where).info.run_id
    champion = load_forecaster("AAA", home=home.root).version
    stock = Universe.load(home.universe).stock("AAA")
    number = serving.promote(client, champion, stock, home=home, run_id=run_id)
    return Registry(home, uri, client, run_id, champion, stock, number)


@pytest.fixture
def entered(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    """The same, as the store that MLflow is told of; the data folder is not in the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    monkeypatch.delenv("RETRAIN_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return registry


def request_of(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.assign(session=bars["session"].dt.strftime("%Y-%m-%d"))


def expected(registry: Registry) -> list[dict[str, Any]]:
    """What the live forecaster says, as the records of an answer."""
    live = load_forecaster("AAA", home=registry.home.root)
    table = live.predict(bars_of(registry.home), PARAMS["horizon"], as_of=PARAMS["as_of"])
    table["session"] = table["session"].dt.strftime("%Y-%m-%d")
    table["close_time"] = [moment.isoformat() for moment in table["close_time"]]
    return list(table.to_dict("records"))


def folder_of(registry: Registry, number: int) -> Path:
    """Where a registered version's files lie."""
    source = registry.client.get_model_version(NAME, str(number)).source
    return Path(source.removeprefix("file://"))


def test_a_champion_is_registered_under_family_and_symbol(registry: Registry) -> None:
    found = registry.client.get_model_version_by_alias(NAME, "champion")
    assert int(found.version) == registry.number
    assert found.run_id == registry.run_id
    assert found.tags == {
        "version": registry.champion.id,
        "title": f"kronos adapter of {MONTH}",
        "stock": "AAA",
        "family": "kronos",
        "base": "tiny",
        "month": MONTH,
    }
    (model,) = [one for one in registry.models() if one.tags["version"] == registry.champion.id]
    assert (model.status, model.source_run_id) == ("READY", registry.run_id)
    outputs = registry.client.get_run(registry.run_id).outputs.model_outputs
    assert model.model_id in [output.model_id for output in outputs]


def test_a_version_is_stored_once_and_aliases_move(registry: Registry, tmp_path: Path) -> None:
    assert registry.promote(registry.champion) == registry.number
    other = replace(registry.champion, seed=8)
    number = registry.promote(other, alias="challenger")
    assert number != registry.number
    assert serving.find(registry.client, NAME, other) == number
    assert serving.find(registry.client, NAME, replace(other, seed=9)) is None

    def holder(alias: str) -> int:
        return int(registry.client.get_model_version_by_alias(NAME, alias).version)

    assert (holder("champion"), holder("challenger")) == (registry.number, number)
    assert registry.promote(other) == number
    assert holder("champion") == number
    assert registry.promote(registry.champion) == holder("champion") == registry.number


def test_nothing_but_json_text_and_safetensors_is_stored(registry: Registry) -> None:
    files = [path for path in folder_of(registry, registry.number).rglob("*") if path.is_file()]
    endings = {path.suffix or path.name for path in files}
    assert endings == {".json", ".safetensors", ".py", ".yaml", ".txt", "MLmodel"}
    (script,) = [path for path in files if path.suffix == ".py"]
    assert "retrain_assets.served" in script.read_text()


def test_mlflow_s_global_state_is_left_alone(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    registry.promote(replace(registry.champion, seed=20), alias="other")
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_champion_forecasts_the_same_to_the_bit(
    entered: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model(URI)
    table = model.predict(request_of(bars_of(entered.home)), params=PARAMS)
    assert table.to_dict("records") == expected(entered)
    whole = bars_of(entered.home).assign(symbol="aaa.us")
    assert len(model.predict(request_of(whole), params=PARAMS)) == 9
    with pytest.raises(MlflowException, match="row 0, symbol: BBB where only AAA"):
        model.predict(request_of(whole.assign(symbol="BBB")), params=PARAMS)


def test_the_stored_example_is_a_request_that_works(entered: Registry) -> None:
    path = folder_of(entered, entered.number) / "serving_input_example.json"
    body = json.loads(path.read_text())
    assert body["params"] == {"horizon": 64, "as_of": LAST_BAR}
    assert body["dataframe_split"]["columns"][:2] == ["session", "open"]
    client = TestClient(scoring_server.init(mlflow.pyfunc.load_model(URI)))
    answer = client.post("/invocations", json=body)
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == 64


def test_what_is_refused_is_told_over_http(entered: Registry) -> None:
    client = TestClient(scoring_server.init(mlflow.pyfunc.load_model(URI)))
    bars = request_of(bars_of(entered.home))

    def answer(table: pd.DataFrame, **params: Any) -> tuple[int, Any]:
        body = {"dataframe_split": table.to_dict("split", index=False), "params": params}
        found = client.post("/invocations", json=body)
        return found.status_code, found.json()

    whole = bars.assign(volume=bars["volume"].astype(int))
    assert answer(whole, **PARAMS)[0] == 200
    status, said = answer(bars, horizon=9)  # as of now
    assert status == 400
    assert "are stale: they end 2023-09-11, and now" in said["message"]
    wrong = bars.assign(session=["11.09.2023", *bars["session"].iloc[1:]])
    for table, reason in [
        (wrong, "row 0 (no date), session"),
        (request_of(bars_of(entered.home, "BBB")), "not those of AAA"),
        (bars.tail(20), "looks back on"),
        (bars.drop(columns="close"), "close"),
    ]:
        status, said = answer(table, **PARAMS)
        assert status == 400, reason
        assert reason in said["message"]


def test_a_model_whose_files_were_changed_does_not_load(entered: Registry, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "model"
    shutil.copytree(folder_of(entered, entered.number), copy)
    (weights,) = copy.rglob("adapter_model.safetensors")
    changed = load_file(weights)
    next(iter(changed.values())).add_(1)
    save_file(changed, weights)
    with pytest.raises(CheckpointError, match="the files were changed"):
        mlflow.pyfunc.load_model(str(copy))


def test_the_base_may_lie_in_another_data_folder(
    entered: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(entered.home.root, tmp_path / "moved", ignore=shutil.ignore_patterns("models"))
    monkeypatch.setenv("RETRAIN_HOME", str(tmp_path / "moved"))
    shutil.rmtree(tmp_path / "moved" / "market")
    model = mlflow.pyfunc.load_model(URI)
    bars = request_of(bars_of(entered.home))
    assert model.predict(bars, params=PARAMS).to_dict("records") == expected(entered)
    shutil.rmtree(tmp_path / "moved" / "checkpoints" / "kronos-tiny")
    with pytest.raises(CheckpointError, match="kronos-tiny"):
        mlflow.pyfunc.load_model(URI)


def test_bases_and_naive_are_served_too(entered: Registry) -> None:
    base = untouched(entered.home, "toto", "tiny", context=128)
    bars = request_of(bars_of(entered.home))
    for version in (base, NAIVE_VERSION):
        entered.promote(version)
        model = mlflow.pyfunc.load_model(f"models:/{version.family}-AAA@champion")
        assert len(model.predict(bars, params=PARAMS)) == 9
        assert model.metadata.metadata["title"] == version.title


def test_an_adapter_that_is_gone_leaves_no_model_behind(registry: Registry) -> None:
    before = len(registry.models())
    adapter = dict(registry.champion.adapter or {}) | {"folder": "kronos/2023-08/AAA/nowhere"}
    with pytest.raises(CheckpointError, match="is gone"):
        registry.promote(replace(registry.champion, adapter=adapter, seed=30))
    assert len(registry.models()) == before


def posted(address: str, body: dict[str, Any]) -> Any:
    """The predictions that a server gives to a request."""
    request = urllib.request.Request(
        f"{address}/invocations",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


@contextmanager
def serving_here(model: Any) -> Iterator[str]:
    """MLflow's scoring server in a thread of this process; yields its address."""
    server = uvicorn.Server(uvicorn.Config(scoring_server.init(model), log_level="warning"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # so that requests wait for the server to start
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


def test_requests_at_the_same_time_get_the_same_numbers_to_the_bit(entered: Registry) -> None:
    bars = request_of(bars_of(entered.home))
    body = {"dataframe_split": bars.to_dict("split", index=False), "params": PARAMS}
    with serving_here(mlflow.pyfunc.load_model(URI)) as address, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: posted(address, body), range(6)))
    assert answers == [expected(entered)] * 6


@contextmanager
def serving_apart(uri: str, tracking: str) -> Iterator[str]:
    """`mlflow models serve` in processes of its own; yields its address once it answers."""
    port = free_port()
    commands = Path(sys.executable).parent
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": tracking,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
    }
    environment.pop("RETRAIN_HOME", None)
    command = [str(commands / "mlflow"), "models", "serve", "-m", uri, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with served(command, f"{address}/ping", environment=environment):
        yield address


@pytest.mark.long
def test_mlflow_models_serve_answers_with_the_same_numbers_to_the_bit(registry: Registry) -> None:
    bars = request_of(bars_of(registry.home))
    body = {"dataframe_split": bars.to_dict("split", index=False), "params": PARAMS}
    with serving_apart(URI, registry.uri) as address:
        assert posted(address, body) == expected(registry)


FRESH = """
import json, sys
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
bars, params = pd.read_parquet(sys.argv[2]), json.loads(sys.argv[3])
print(json.dumps(model.predict(bars, params=params).to_dict("records")))
"""


@pytest.mark.long
def test_a_model_s_requirements_suffice_in_a_fresh_environment(
    registry: Registry, tmp_path: Path
) -> None:
    """Nothing is installed but what they name, in the versions of the lock."""
    model, wheels = folder_of(registry, registry.number), tmp_path / "wheels"
    made = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    subprocess.run([*made, "-w", str(wheels), str(ROOT)], check=True)
    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / LOCK)]
    install += ["--find-links", str(wheels), "-r", str(model / "requirements.txt")]
    subprocess.run(install, check=True)
    bars = request_of(bars_of(registry.home))
    bars.to_parquet(tmp_path / "bars.parquet")
    asked = [
        str(python),
        "-c",
        FRESH,
        str(model),
        str(tmp_path / "bars.parquet"),
        json.dumps(PARAMS),
    ]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RETRAIN_"))}
    reply = subprocess.run(
        asked, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True
    )
    assert json.loads(reply.stdout.splitlines()[-1]) == expected(registry)
