"""The guide's file tree, made of what is in production, for people and scripts that know it.

What lies where:

- `hyperparams/<family>/<stock>.json`: what the family's champion forecasts with, and as
  `model_path` the folder of its adapter; null if it is a base alone.
- The family's own folders (`ExportLayout`): one adapter and what is told of its training. It is
  the champion's, whatever month it is of, since that is what live use loads. If the champion is a
  base alone, it is the adapter of the latest candidate, as the record of a training, and its files
  say `champion: false`. A training's checkpoints go when it ends; what it began with stays.
- `retraining_results.json`, `hyperparameter_validation_results.json`, `regression_analysis.json`
  and `comparison_results/`: of one month.
- `export.json`: the index. Which version of which stock is here, what was left out and why, and
  every file; by that list the next export knows that nothing else is lost with the old one.

`in_production: true` marks the one version of a stock that forecasts where no family is named.
All paths are relative to the root, so the tree can be copied elsewhere.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock

from retrain_assets.errors import BadInput
from retrain_assets.export.contents import gather
from retrain_assets.files import atomic_folder, read_json, write_json
from retrain_assets.home import Home

INDEX = "export.json"


def export_tree(target: Path, *, home: Home, month: str | None = None) -> list[Path]:
    """Write the tree of all champions to the folder `target`; returns its files.

    home: the data folder, which is only read. month: whose summaries are taken, by default the
    latest that a champion was decided on. The tree replaces an earlier one whole, and only once
    it is complete; of the same records it is the same to the byte.

    A stock without bars, and a family that is no longer there, are left out and listed. Raises
    BadInput, saying what to run, if nothing is in production, and for a `target` that holds other
    files than an export's; CheckpointError for a champion whose adapter is gone or altered.
    """
    target = target.expanduser().resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        _refuse_other_files(target)
        tree = gather(home, month)
        files = sorted({*tree.copies, *tree.objects, *tree.texts, INDEX})
        with atomic_folder(target) as root:
            for name, source in tree.copies.items():
                shutil.copyfile(source, _at(root, name))
            for name, text in tree.texts.items():
                _at(root, name).write_text(text, encoding="utf-8")
            for name, value in tree.objects.items():
                write_json(root / name, value)
            write_json(root / INDEX, tree.index | {"files": files})
    return [target / name for name in files]


def _refuse_other_files(target: Path) -> None:
    """Raise BadInput if replacing `target` would lose anything that no export wrote."""
    if not target.exists():
        return
    if not target.is_dir():
        raise BadInput(f"{target} is a file: name a folder to export to")
    index = target / INDEX
    found = read_json(index) if index.is_file() else {}
    known = found.get("files", []) if isinstance(found, dict) else []
    for other in sorted(_files(target) - set(known)):
        raise BadInput(
            f"{target} holds {other}, which is not of an export, and would be replaced whole: "
            "move it away, or name another folder"
        )


def _files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


def _at(root: Path, name: str) -> Path:
    """A file below `root`, its folder made."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
