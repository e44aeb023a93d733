"""Files that are written whole or not at all, what killed writers leave, and whose turn it is."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pandas as pd
import pytest

from retrain_assets.errors import CannotWrite
from retrain_assets.files import (
    atomic_file,
    atomic_folder,
    read_json,
    sweep,
    turn,
    write_json,
    write_text,
)
from retrain_assets_tests.full_disk import disk_that_takes

LEFT = ".x.json.0123456789ab.partial"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_is_told_with_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"old": True})
    with disk_that_takes(512), pytest.raises(CannotWrite) as told:
        write_json(tmp_path / "x.json", {"new": "x" * 5000})
    assert told.value.errno == errno.EFBIG
    assert str(told.value).startswith(f"cannot write {tmp_path / 'x.json'} (File too large)")
    assert "make room on the disk" in str(told.value)
    assert read_json(tmp_path / "x.json") == {"old": True}
    assert names(tmp_path) == ["x.json"]
    write_json(tmp_path / "x.json", {"new": "x" * 5000})


def test_a_table_that_the_disk_does_not_take_leaves_no_folder(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [float(i) ** 0.5 for i in range(4000)]})

    def write() -> None:
        with atomic_folder(tmp_path / "search") as partial:
            write_json(partial / "params.json", {})
            table.to_parquet(partial / "grid.parquet")

    with disk_that_takes(4096), pytest.raises(CannotWrite, match=str(tmp_path / "search")):
        write()
    assert names(tmp_path) == []
    write()
    assert names(tmp_path / "search") == ["grid.parquet", "params.json"]


def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotWrite, match="see to the permissions"):
        write_text(tmp_path / "file" / "x.txt", "x")


def test_other_errors_go_through_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "x"):
        (tmp_path / "gone").read_bytes()
    assert names(tmp_path) == []


def test_the_next_write_sweeps_what_a_killed_writer_of_the_same_left(tmp_path: Path) -> None:
    (tmp_path / LEFT).write_text('{"hal')
    (tmp_path / ".y.json.0123456789ab.partial").mkdir()
    (tmp_path / ".y.json.0123456789ab.partial" / "z").touch()
    write_json(tmp_path / "x.json", {})
    assert names(tmp_path) == [".y.json.0123456789ab.partial", "x.json"]
    assert sweep(tmp_path) == [tmp_path / ".y.json.0123456789ab.partial"]
    assert names(tmp_path) == ["x.json"]


def test_what_is_still_being_written_is_not_swept(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "x.json") as partial, atomic_folder(tmp_path / "y") as folder:
        partial.write_text("{}")
        assert sweep(tmp_path) == []
        write_json(tmp_path / "x.json", {"another": "writer"})
        assert partial.exists()
        assert folder.exists()
    assert read_json(tmp_path / "x.json") == {}, "the last to end"
    assert names(tmp_path) == ["x.json", "y"]


def test_hidden_files_of_others_are_left_alone(tmp_path: Path) -> None:
    others = [".gitignore", ".x.partial", "x.0123456789ab.partial", ".x.0123456789ab.training"]
    for name in others:
        (tmp_path / name).touch()
    assert sweep(tmp_path) == []
    assert names(tmp_path) == sorted(others)


def test_a_folder_that_is_being_replaced_is_not_swept_from_under_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one has a hidden name for a moment, and comes back if the new one cannot come in."""
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "old").touch()
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target.name == "y" and self.name.endswith(".partial") and not (self / "old").exists():
            assert sweep(tmp_path) == []
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(CannotWrite), atomic_folder(tmp_path / "y") as partial:
        (partial / "new").touch()
    assert names(tmp_path) == ["y"]
    assert names(tmp_path / "y") == ["old"]


def test_whoever_comes_second_is_told_and_waits_for_its_turn(tmp_path: Path) -> None:
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with turn(tmp_path / "lock", waiting=waits.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with turn(tmp_path / "lock", waiting=lambda: order.append("nobody else is here")):
        thread.start()
        assert waits.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_a_lock_whose_holder_died_is_free(tmp_path: Path) -> None:
    """The kernel lets go of it, so a lock file that is left over means nothing."""
    (tmp_path / "lock").touch()
    with turn(tmp_path / "lock", waiting=lambda: pytest.fail("nobody holds it")):
        handle = os.open(tmp_path / "lock", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
