"""A network's config.json, read strictly: a wrong config would make a wrong network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from retrain_assets.errors import BadInput, CheckpointError
from retrain_assets.files import read_json


def read_config(path: Path) -> object:
    """The content of a JSON file; raises CheckpointError naming it."""
    try:
        return read_json(path)
    except BadInput as error:
        raise CheckpointError(str(error)) from error


def check_fields(
    content: Mapping[str, object],
    types: Mapping[str, str],
    *,
    needed: Collection[str],
    where: Path | str,
    kind: str,
) -> None:
    """That a file's fields are those of a network, each of its type.

    types: of every field, as annotations are written. needed: fields that must be there. where,
    kind: the file and what it should describe, for complaints. Raises CheckpointError.
    """
    for name in sorted(set(needed) - content.keys()):
        raise CheckpointError(f"{where}: field {name!r} is missing; is this {kind}?")
    for name in sorted(content.keys() - types.keys()):
        raise CheckpointError(f"{where}: field {name!r} is unknown; is this {kind}?")
    for name, value in content.items():
        if not fits(value, types[name]):
            raise CheckpointError(f"{where}: field {name!r} must be {types[name]}, not {value!r}")


def fits(value: object, type_name: str) -> bool:
    """Whether a JSON value is of a type; a whole number will do for a float, a bool for neither."""
    match type_name:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "str":
            return isinstance(value, str)
        case "list[str]":
            return isinstance(value, list) and all(fits(item, "str") for item in value)
        case "dict[str, int]":
            return isinstance(value, dict) and all(fits(item, "int") for item in value.values())
        case _:
            raise ValueError(f"no JSON value is checked for the type {type_name}")


def require(fulfilled: bool, field: str, demand: str) -> None:
    """Raise ValueError with the field and what it must be, unless that holds."""
    if not fulfilled:
        raise ValueError(f"field {field!r} {demand}")
