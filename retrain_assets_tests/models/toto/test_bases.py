"""Toto's table of bases: pinned, and open to the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrain_assets.errors import BadInput
from retrain_assets.models.toto.bases import BUILT_IN, Base, find_base

PIN = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize("name", BUILT_IN)
def test_published_bases_are_pinned(tmp_path: Path, name: str) -> None:
    base = find_base(name, checkpoints=tmp_path)
    published = "/" in base.model
    assert published == (not name.startswith("nano"))
    if published:
        assert len(base.revision or "") == 40
        assert base.patch == (64 if name == "open-base-1.0" else 32)
        assert base.max_context == 4096


def test_an_entry_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "bases.yaml").write_text(
        f"toto:\n  mine: {{model: a/b, max_context: 640, revision: '{PIN}'}}\n"
    )
    assert find_base("mine", checkpoints=tmp_path) == Base("a/b", 640, PIN)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{model: a}", "mine: field 'max_context' is missing"),
        ("{model: a, max_context: 64, tokenizer: b}", "mine: field 'tokenizer' is unknown"),
        ("{model: a, max_context: 1}", "'max_context' must be a whole number"),
        ("{model: a/b, max_context: 64, revision: main}", "'revision': 'main' does not pin"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, entry: str, message: str) -> None:
    (tmp_path / "bases.yaml").write_text(f"toto:\n  mine: {entry}\n")
    with pytest.raises(BadInput, match=rf"bases\.yaml: toto: .*{message}"):
        find_base("mine", checkpoints=tmp_path)


def test_an_unlisted_folder_is_answered_with_lines_that_work(tmp_path: Path) -> None:
    folder = tmp_path / "My-Toto"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="does not say its longest window") as refused:
        find_base("My-Toto", checkpoints=tmp_path)
    (tmp_path / "bases.yaml").write_text(str(refused.value).partition("\n")[2])
    assert find_base("my-toto", checkpoints=tmp_path) == Base("My-Toto", 4096)
    with pytest.raises(BadInput, match=r"no Toto base '9b': choose one of nano, nano-1, 4m, "):
        find_base("9b", checkpoints=tmp_path)
