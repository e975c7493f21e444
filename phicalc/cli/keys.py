"""Options for the names under which files keep labels."""

import argparse
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from phicalc.data.config import KeysConfig


def add_keys(verb: argparse.ArgumentParser, default: str) -> None:
    """Add an option for each entry of `KeysConfig`; `default` says where defaults come from."""
    group = verb.add_argument_group(f"names of the labels in the files (default: {default})")
    kinds = get_type_hints(KeysConfig)
    for field in fields(KeysConfig):
        kind = kinds[field.name]
        choices = get_args(kind) if get_origin(kind) is Literal else None
        group.add_argument(
            f"--{field.name.replace('_', '-')}", choices=choices, metavar=None if choices else "KEY"
        )


def keys_of(options: argparse.Namespace, known: Mapping[str, Any] | None = None) -> KeysConfig:
    """Return the names given by options, else those `known`, else the usual ones."""
    values = {}
    for field in fields(KeysConfig):
        given = getattr(options, field.name)
        if given is not None:
            values[field.name] = given
        elif field.name in (known or {}):
            values[field.name] = known[field.name]  # type: ignore[index]
    return KeysConfig(**values)
