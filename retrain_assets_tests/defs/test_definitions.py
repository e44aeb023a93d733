"""The code location: what it holds, how it presents itself, how quickly it loads."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.partitions.context import partition_loading_context

from retrain_assets.definitions import build_definitions
from retrain_assets.defs.partitions import partition_key, register_stocks
from retrain_assets.home import Home
from retrain_assets.models.forecaster import families

ROOT = Path(__file__).parents[2]
GROUPS = (
    {
        "market_bars": "market",
        "baseline_metrics": "baseline",
        "comparison": "comparison",
        "comparison_summary": "comparison",
        "params_summary": "search",
        "champion": "promotion",
        "live_performance": "promotion",
        "guide_files": "promotion",
        "confirmation": "regression",
        "regression_report": "regression",
        "month_report": "report",
    }
    | {f"{name}_adapter": "training" for name in families()}
    | {f"{name}_refined": "training" for name in families()}
    | {f"{name}_params": "search" for name in families()}
)
SUMMARIES = {
    *("comparison_summary", "params_summary", "regression_report", "guide_files"),
    "month_report",
}
LADDERS = {f"{name}_refined" for name in families()}


@pytest.fixture(scope="module")
def repository(template: Path) -> dg.RepositoryDefinition:
    return build_definitions(Home(template)).get_repository_def()


def test_every_asset_presents_itself(repository: dg.RepositoryDefinition) -> None:
    nodes = {key.to_user_string(): repository.asset_graph.get(key) for key in all_keys(repository)}
    assert {name: node.group_name for name, node in nodes.items()} == GROUPS
    for name, node in nodes.items():
        assert len(node.description or "") > 40, name
        assert node.owners == ["team:forecasting"], name
        assert node.kinds, name


def all_keys(repository: dg.RepositoryDefinition) -> set[dg.AssetKey]:
    return set(repository.asset_graph.get_all_asset_keys())


def test_the_graph_reads_as_the_pipeline(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    parents = {
        key.to_user_string(): {p.to_user_string() for p in graph.get(key).parent_keys}
        for key in all_keys(repository)
    }
    adapters = {f"{name}_adapter" for name in families()}
    searches = {f"{name}_params" for name in families()}
    assert parents["market_bars"] == set()
    assert parents["baseline_metrics"] == {"market_bars"}
    for name in adapters:
        assert parents[name] == {"market_bars", "baseline_metrics"}
    for name in families():
        assert parents[f"{name}_params"] == {"market_bars", f"{name}_adapter"}
        assert parents[f"{name}_refined"] == parents[f"{name}_params"] | {f"{name}_params"}
    made = {*adapters, *searches, *LADDERS}
    assert parents["comparison"] == {"market_bars", "baseline_metrics", *made}
    assert parents["champion"] == {"market_bars", "comparison", "champion"}
    assert parents["live_performance"] == {"market_bars", "champion"}
    assert parents["confirmation"] == {"market_bars", "comparison", "champion"}
    assert parents["regression_report"] == {"comparison", "champion", "confirmation", *made}
    told = SUMMARIES - {"guide_files", "month_report"}
    assert parents["guide_files"] == told | {"champion"}
    decided = {"comparison", "champion", "live_performance"}
    assert parents["month_report"] == told | decided | adapters | searches
    assert parents["comparison_summary"] == {"comparison"}
    assert parents["params_summary"] == {*adapters, *searches}


def test_checks_block_and_are_partitioned(repository: dg.RepositoryDefinition) -> None:
    specs = {key.name: repository.asset_graph.get(key) for key in check_keys(repository)}
    assert set(specs) == {"bars_are_valid", "adapter_reloads", "params_reproduce", "live_drift"}
    for name, spec in specs.items():
        assert spec.blocking == (name != "live_drift")
        assert isinstance(spec.partitions_def, dg.MultiPartitionsDefinition)


def check_keys(repository: dg.RepositoryDefinition) -> set[dg.AssetCheckKey]:
    return set(repository.asset_graph.asset_check_keys)


def test_what_uses_a_model_waits_for_the_gpu_pool(repository: dg.RepositoryDefinition) -> None:
    definitions = repository.assets_defs_by_key
    pooled = {key.to_user_string() for key, d in definitions.items() if d.op.pool == "gpu"}
    steps = {f"{name}_{step}" for name in families() for step in ("adapter", "params", "refined")}
    assert pooled == {"comparison", "champion", "live_performance", "confirmation", *steps}


@pytest.mark.parametrize("name", ["champion", "live_performance"])
def test_what_was_decided_the_month_before_is_read(
    repository: dg.RepositoryDefinition, name: str
) -> None:
    graph, own = repository.asset_graph, partition_key("2023-08", "AAA")
    with dg.DagsterInstance.ephemeral() as instance:
        register_stocks(instance, ["AAA", "BBB"])
        with partition_loading_context(dynamic_partitions_store=instance):
            subset = graph.get(dg.AssetKey(name)).partitions_def.subset_with_partition_keys([own])
            mapping = graph.get_partition_mapping(dg.AssetKey(name), dg.AssetKey("champion"))
            found = mapping.get_upstream_mapped_partitions_result_for_partitions(
                subset,
                graph.get(dg.AssetKey(name)).partitions_def,
                graph.get(dg.AssetKey("champion")).partitions_def,
            )
            assert set(found.partitions_subset.get_partition_keys()) == {"2023-07|AAA"}


def test_each_job_has_its_share_of_the_graph(repository: dg.RepositoryDefinition) -> None:
    job = repository.get_job("retrain_stock")
    assert job.executor_def.name == "in_process"
    searches = {f"{name}_params" for name in families()}
    shares = {
        "retrain_stock": set(GROUPS) - SUMMARIES - LADDERS - {"confirmation"},
        "search_params": searches,
        "refine_stock": LADDERS | {"comparison", "champion"},
        "promote_stock": {"champion"},
        "confirm_stock": {"confirmation"},
        "summarise_month": SUMMARIES,
    }
    for name, share in shares.items():
        selected = repository.get_job(name).asset_layer.selected_asset_keys
        assert {key.to_user_string() for key in selected} == share, name


def test_the_location_has_one_name_everywhere() -> None:
    (location,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert location["python_module"]["location_name"] == project["code_location_name"]
    assert location["python_module"]["module_name"] == project["code_location_target_module"]


PROBE = """
import sys, time
start = time.process_time()
import retrain_assets.definitions
heavy = "torch peft mlflow pandera statsmodels arch scipy transformers matplotlib"
heavy += " exchange_calendars statsforecast scoringrules"
print(time.process_time() - start, *(name for name in heavy.split() if name in sys.modules))
"""


def test_the_location_loads_without_anything_heavy(template: Path) -> None:
    # Processor time, and the best of some: a busy neighbour slows what shares its caches.
    attempts = [loaded(template) for _ in range(3)]
    assert [heavy for _, heavy in attempts] == [[], [], []]
    assert min(seconds for seconds, _ in attempts) < 4, attempts


def loaded(home: Path) -> tuple[float, list[str]]:
    """Processor seconds of a process that loads the code location, and heavy imports in it."""
    reply = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={"RETRAIN_HOME": str(home), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, *heavy = reply.stdout.split()
    return float(seconds), heavy
