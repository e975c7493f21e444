"""Settings as the plain dicts, lists and numbers that YAML and JSON hold."""

import dataclasses
import numbers
from collections.abc import Collection, Mapping
from typing import Any


def plain_number(value: Any) -> Any:
    """Return a NumPy or torch scalar, or an array without axes, as a number of Python's own.

    Anything else comes back as it is.
    """
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        item = value.item()
        # long doubles stay what they are
        is_number = isinstance(item, numbers.Real) and hasattr(item, "ndim")
        return float(item) if is_number else item
    return value


def plain_sequence(value: Any) -> Any:
    """Return an array with axes as nested lists, anything else as it is."""
    if getattr(value, "ndim", 0) and callable(getattr(value, "tolist", None)):
        return value.tolist()
    return value


def to_plain(value: Any) -> Any:
    """Turn nested dataclasses, tuples and arrays into the dicts and lists of YAML and JSON."""
    if hasattr(value, "to_settings"):
        return value.to_settings()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    value = plain_sequence(value)
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return plain_number(value)


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], skip: Collection[str] = ()
) -> list[str]:
    """Say where two nested settings differ, ``section.key: before → now``, except in `skip`."""
    old, new = flatten(before), flatten(now)
    return [
        f"{key}: {old.get(key)!r} → {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in skip
    ]


def flatten(settings: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Turn nested sections into ``section.key`` → value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{where}.{key}" if where else key
        flat |= flatten(value, path) if isinstance(value, Mapping) else {path: value}
    return flat
