"""Every command explains itself: with an example, within 100 columns, plain where it is piped."""

from __future__ import annotations

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from retrain_assets.cli import app

COLUMNS = 100
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]  # it is a group


def helped(*arguments: str) -> str:
    reply = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": str(COLUMNS)})
    assert reply.exit_code == 0
    return reply.output


@pytest.mark.parametrize("command", COMMANDS)
def test_its_help_has_an_example_of_itself(command: str) -> None:
    told = helped(command)
    assert "Example" in told
    assert f"retrain {command}" in told.partition("Example")[2]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_its_help_is_plain_and_fits(command: str) -> None:
    told = helped(*filter(None, [command]))
    assert "\x1b" not in told
    assert max(map(len, told.splitlines())) <= COLUMNS


def test_all_commands_are_listed_with_a_line_each() -> None:
    told = helped()
    assert [name for name in COMMANDS if f" {name} " not in told] == []
