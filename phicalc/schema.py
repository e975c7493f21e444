"""Strict reading of settings: YAML text → mappings → frozen dataclasses, and back.

Unknown keys, duplicate keys, wrong types and missing values are errors that name the key by its
full path (``loss.forces.weight``) and, for a misspelling, the keys that come near.
"""

import dataclasses
import difflib
import re
import types
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader that refuses duplicate keys and reads ``1e-3`` as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ValueError(f"the key {key!r} appears twice (line {line}); keep one of them")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# YAML 1.1 asks for a dot in floats, so PyYAML would read the usual "1e-3" as text.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str) -> Any:
    """Read YAML text strictly (see the module's description).

    Raises
    ------
    ValueError
        For text that is not YAML, and for duplicate keys.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"this is not valid YAML: {error}") from error


def apply_override(settings: dict[str, Any], override: str) -> None:
    """Set one value of nested `settings` in place from a text like ``optimizer.lr=0.01``.

    The value is read as YAML. Missing sections are made; whether the key exists at all is
    decided later, by `build`.

    Raises
    ------
    ValueError
        Without ``=``, or when the path runs through a value that is not a section.
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
    section[keys[-1]] = parse_yaml(text)


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise a `ValueError` naming unknown keys, the near matches and what is allowed."""
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=2)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(
                f"unknown key {_join(where, str(key))!r}.{hint} "
                f"Known keys of {where or 'the top level'}: {', '.join(sorted(known))}"
            )


def build(cls: type[T], settings: Any, where: str = "", skip: tuple[str, ...] = ()) -> T:
    """Make the dataclass `cls` from a mapping, checking every key and type.

    Parameters
    ----------
    cls
        A dataclass whose fields are annotated with scalars, ``Literal``, ``X | None``,
        ``tuple[X, ...]``, ``dict[str, X]`` or further dataclasses.
    settings
        The mapping; ``None`` (an empty section) means all defaults.
    where
        Path of this section, for messages.
    skip
        Fields that may not be given; they keep their defaults.

    Raises
    ------
    ValueError
        For unknown or missing keys, wrong types, and whatever `cls` itself refuses.
    """
    settings = {} if settings is None else settings
    if not isinstance(settings, Mapping):
        raise ValueError(f"{where or 'the settings'} must be a section of keys, got {settings!r}")
    hints = get_type_hints(cls)
    fields = [f for f in dataclasses.fields(cls) if f.name not in skip]  # type: ignore[arg-type]
    check_keys(settings, [field.name for field in fields], where)
    required = [f.name for f in fields if _is_required(f)]
    missing = [_join(where, name) for name in required if name not in settings]
    if missing:
        raise ValueError(f"missing key {', '.join(map(repr, missing))}; it has no default")
    values = {k: _convert(hints[k], v, _join(where, k)) for k, v in settings.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def to_plain(value: Any) -> Any:
    """Turn nested dataclasses and tuples into the dicts and lists that YAML and JSON hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def dump_yaml(settings: Mapping[str, Any]) -> str:
    """Write settings as YAML text in their own order."""
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=100)


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
        path = _join(where, key)
        flat |= flatten(value, path) if isinstance(value, Mapping) else {path: value}
    return flat


def check_at_least(smallest: int, **values: int | None) -> None:
    """Refuse whole numbers below `smallest`; None passes.

    Raises
    ------
    ValueError
        Naming the first value that is too small.
    """
    for name, value in values.items():
        if value is not None and value < smallest:
            raise ValueError(f"{name!r} must be ≥ {smallest}, got {value}")


def check_positive(**values: float | None) -> None:
    """Refuse numbers that are not positive; None passes.

    Raises
    ------
    ValueError
        Naming the first value that is not positive.
    """
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name!r} must be positive, got {value}")


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _is_required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Check `value` against the annotation `kind` and return it in that type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)  # type: ignore[arg-type]
    if origin is Literal:
        return _convert_choice(arguments, value, where)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where!r} must be a section of keys, got {value!r}")
        return {str(k): _convert(arguments[1], v, _join(where, str(k))) for k, v in value.items()}
    return _convert_scalar(kind, value, where)


def _convert_choice(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    for choice in choices:
        if value == choice and type(value) is type(choice):
            return choice
    near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(map(repr, choices))
    raise ValueError(f"{where!r} must be one of {listed}; got {value!r}.{hint}")


def _convert_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in members:
        return None
    errors = []
    for member in members:
        if member is type(None):
            continue
        try:
            return _convert(member, value, where)
        except ValueError as error:
            errors.append(error)
    raise errors[0] if len(errors) == 1 else ValueError("; or ".join(map(str, errors)))


def _convert_tuple(members: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where!r} must be a list, got {value!r}")
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise ValueError(f"{where!r} must be a list of {len(members)} values, got {value!r}")
    pairs = enumerate(zip(members, value, strict=True))
    return tuple(_convert(member, item, f"{where}[{i}]") for i, (member, item) in pairs)


def _convert_scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        expected = names.get(kind, kind.__name__)
        raise ValueError(f"{where!r} must be {expected}, got {value!r} ({type(value).__name__})")
    return value
