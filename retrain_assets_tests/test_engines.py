"""Dagster's SQLite engines are kept: this fails when Dagster stops asking for them as it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage import sql

from retrain_assets import engines


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses of the engines that are made from now on."""
    addresses: list[str] = []
    create = sql.create_engine

    def counted(address: str, **options: Any) -> Any:
        addresses.append(address)
        return create(address, **options)

    engines._engine.cache_clear()
    monkeypatch.setattr(sql, "create_engine", counted)
    engines.keep_engines()
    return addresses


def test_each_file_of_the_storage_has_one_engine(made: list[str], tmp_path: Path) -> None:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        instance.add_dynamic_partitions("stock", ["AAA"])
        for _ in range(5):
            assert instance.has_dynamic_partition("stock", "AAA")
            assert instance.get_runs() == []
    assert 0 < len(made) == len(set(made))


def test_no_connection_is_held_between_statements(made: list[str], tmp_path: Path) -> None:
    """As a fork would share it with its parent."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        instance.add_dynamic_partitions("stock", ["AAA"])
        assert made
        assert engines._engine.cache_info().currsize > 0
        held = [p for p in Path("/proc/self/fd").iterdir() if tmp_path in p.resolve().parents]
        assert held == []
