"""Settings that the command line changes: ``section.key=value``."""

from typing import Any

from phicalc.schema.text import parse_yaml


def apply_override(settings: dict[str, Any], override: str) -> None:
    """Set one value of nested `settings` in place from a text like ``optimizer.lr=0.01``.

    The value is read as YAML. Missing sections are made; `build` decides later whether the key
    exists at all.

    Raises
    ------
    ValueError
        Without ``=``, for a value that is not YAML, or when the path runs through a value that is
        not a section.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ValueError(f"an override reads section.key=value, got {override!r}")
    section = settings
    for depth, key in enumerate(keys[:-1], start=1):
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            raise ValueError(
                f"the override {override!r} treats {'.'.join(keys[:depth])!r} as a section, but "
                f"its value is {section!r}; give the override a shorter path"
            )
    try:
        section[keys[-1]] = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"the override {override!r}: {error}") from error
