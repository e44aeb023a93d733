from pathlib import Path

import pytest

from retrain_assets.errors import BadInput
from retrain_assets.models.kronos.bases import BUILT_IN, Base, find_base

PIN = "0123456789abcdef" * 2 + "01234567"


def listing(checkpoints: Path, text: str) -> Path:
    (checkpoints / "bases.yaml").write_text(text)
    return checkpoints


@pytest.mark.parametrize("name", BUILT_IN)
def test_published_bases_are_pinned(tmp_path: Path, name: str) -> None:
    base = find_base(name, checkpoints=tmp_path)
    for source, revision in (
        (base.model, base.revision),
        (base.tokenizer, base.tokenizer_revision),
    ):
        assert ("/" in source) == (revision is not None)
        assert revision is None or len(revision) == 40
    assert base.max_context == (2048 if name == "mini" else 512)


def test_an_entry_of_ones_own(tmp_path: Path) -> None:
    listing(
        tmp_path,
        f"toto: {{x: {{}}}}\nkronos:\n  mine: {{model: a, tokenizer: b/c, max_context: 64, "
        f"tokenizer_revision: '{PIN}'}}\n",
    )
    assert find_base("mine", checkpoints=tmp_path) == Base("a", "b/c", 64, None, PIN)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{model: a, tokenizer: b}", "mine: field 'max_context' is missing"),
        ("{model: a, max_context: 64}", "mine: field 'tokenizer' is missing"),
        ("{model: a, tokenizer: b, max_context: 64, pin: 1}", "mine: field 'pin' is unknown"),
        ("{model: a, tokenizer: b, max_context: '64'}", "'max_context' must be a whole number"),
        ("{model: a, tokenizer: b, max_context: true}", "'max_context' must be a whole number"),
        ("{model: 3, tokenizer: b, max_context: 64}", "'model' must be a folder or a hub id"),
        (
            "{model: a/b, tokenizer: b, max_context: 64, revision: main}",
            "'revision': 'main' does not pin",
        ),
        ("[a, b]", "mine: expected fields"),
        ("{model: a", "not valid YAML"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, entry: str, message: str) -> None:
    listing(tmp_path, f"kronos:\n  mine: {entry}\n")
    with pytest.raises(BadInput, match=rf"bases\.yaml.*{message}"):
        find_base("mine", checkpoints=tmp_path)


@pytest.mark.parametrize("text", ["- kronos\n", "kronos: [a]\n"])
def test_a_table_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="expected a section 'kronos'"):
        find_base("nano", checkpoints=listing(tmp_path, text))


def test_a_built_in_name_cannot_be_taken(tmp_path: Path) -> None:
    listing(tmp_path, "kronos:\n  mini: {model: a, tokenizer: b, max_context: 64}\n")
    with pytest.raises(BadInput, match="mini is built in"):
        find_base("nano", checkpoints=tmp_path)


def test_a_name_that_could_be_a_path_is_refused(tmp_path: Path) -> None:
    listing(tmp_path, "kronos:\n  ../mine: {model: a, tokenizer: b, max_context: 64}\n")
    with pytest.raises(BadInput, match="no usable name"):
        find_base("nano", checkpoints=tmp_path)


def test_an_unknown_base_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    listing(tmp_path, "kronos:\n  mine: {model: a, tokenizer: b, max_context: 64}\n")
    with pytest.raises(BadInput, match=r"'large': choose one of nano, mini, small, base, mine"):
        find_base("large", checkpoints=tmp_path)


@pytest.mark.parametrize("relative", [True, False])
def test_an_unlisted_folder_is_answered_with_lines_that_work(
    tmp_path: Path, relative: bool
) -> None:
    folder = tmp_path / "My-Kronos"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="is not listed") as refused:
        find_base("My-Kronos" if relative else str(folder), checkpoints=tmp_path)
    lines = str(refused.value).partition("\n")[2]
    assert lines.startswith("kronos:")
    base = find_base("my-kronos", checkpoints=listing(tmp_path, lines))
    assert base.model == "My-Kronos"
    assert base.tokenizer_revision == BUILT_IN["base"].tokenizer_revision
