"""Checks of settings against the annotations of their dataclass.

Unknown keys, wrong types, words that are not offered, numbers out of range and missing values are
errors that name the field by its full path (``loss.forces.weight``) and, for a misspelling, what
comes near. The same sentence answers Python, YAML and a model's card.
"""

import dataclasses
import functools
import inspect
import math
import numbers
import os
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from phicalc.schema.plain import plain_number, plain_sequence
from phicalc.schema.rules import NonFinite, Rule
from phicalc.schema.words import check_names, hint, join, refusal, shown

T = TypeVar("T")

_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def settings(cls: type[T]) -> type[T]:
    """Make the constructor of a dataclass answer misspelt and missing arguments as YAML's reader.

    The errors are `ValueError`. Used above ``@dataclass``; the values themselves are the business
    of `checked`.
    """
    construct: Any = cls.__init__
    fields = [f for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
    positional = [field.name for field in fields if not field.kw_only]

    def __init__(self: T, *args: Any, **kwargs: Any) -> None:
        check_names(fields, kwargs, "", positional[: len(args)])
        construct(self, *args, **kwargs)

    # The wrapper keeps the signature for readers, but admits everything that `checked` converts.
    __init__.__signature__ = inspect.signature(construct)  # type: ignore[attr-defined]
    cls.__init__ = __init__  # type: ignore[assignment]
    return cls


def checked(instance: Any) -> None:
    """Check and convert, in place, every field of a settings dataclass against its annotation.

    Called first in ``__post_init__``: afterwards every field has the type and the range that it is
    annotated with, NumPy's numbers and arrays are numbers and tuples of Python's own, and mappings
    have become the dataclasses that they describe.

    Raises
    ------
    ValueError
        Naming the first field that does not fit, what it takes and what it got.
    """
    hints = _hints(instance.__class__)
    for field in dataclasses.fields(instance):
        value = convert(hints[field.name], getattr(instance, field.name), field.name)
        object.__setattr__(instance, field.name, value)  # settings are frozen


def build(cls: type[T], settings: Any, where: str = "", skip: tuple[str, ...] = ()) -> T:
    """Return the dataclass `cls` made from a mapping, with every key and value checked.

    Parameters
    ----------
    cls
        A dataclass whose fields are annotated with scalars, ``Literal``, ``X | None``,
        ``tuple[X, ...]``, ``dict[str, X]``, ``Annotated[X, rule]``, further dataclasses, or classes
        with a class method ``from_settings(value, where)``.
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
        name = repr(where) if where else "the settings"
        raise ValueError(f"{name} must be a section of keys, got {shown(settings)}")
    fields = [f for f in dataclasses.fields(cls) if f.name not in skip]  # type: ignore[arg-type]
    check_names(fields, settings, where)
    hints = _hints(cls)
    values = {k: convert(hints[k], v, join(where, k)) for k, v in settings.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def convert(kind: Any, value: Any, where: str) -> Any:
    """Return `value` in the type that the annotation `kind` describes.

    A class with a class method ``from_settings(value, where)`` converts its own values; instances
    of it pass.

    Raises
    ------
    ValueError
        If the value does not fit; `where` names it in the message.
    """
    if kind is Any:
        return _plain_inside(value)
    if isinstance(kind, type) and get_origin(kind) is None:
        return _convert_class(kind, value, where)
    return _convert_form(kind, value, where)


def _convert_class(kind: type, value: Any, where: str) -> Any:
    if kind in _NAMES:
        return _convert_scalar(kind, value, where)
    if isinstance(value, kind):
        return value
    if hasattr(kind, "from_settings"):
        return kind.from_settings(value, where)
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)
    raise refusal(where, f"be a {kind.__name__}", value, f" ({type(value).__name__})")


def _convert_form(kind: Any, value: Any, where: str) -> Any:
    """Convert to what a form of `typing` describes."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _convert_choice(arguments, value, where)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is Annotated:
        return _convert_ruled(arguments[0], arguments[1:], value, where)
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin is dict:
        return _convert_dict(arguments[1], value, where)
    raise TypeError(f"settings cannot be annotated with {kind!r}")


def _convert_choice(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    value = plain_number(value)
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    listed = ", ".join(map(repr, choices))
    raise refusal(where, f"be one of {listed}", value, hint(value, choices))


def _convert_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in members:
        return None
    errors = []
    for member in members:
        if member is type(None):
            continue
        try:
            return convert(member, value, where)
        except ValueError as error:
            errors.append(error)
    raise errors[0] if len(errors) == 1 else ValueError("; or ".join(map(str, errors)))


def _convert_ruled(kind: Any, rules: tuple[Any, ...], value: Any, where: str) -> Any:
    """Convert, then apply the rules of an ``Annotated``; None is what the type says about it."""
    number = plain_number(value)
    if NonFinite in rules and isinstance(number, float) and not math.isfinite(number):
        return number
    value = convert(kind, value, where)
    for rule in rules:
        if isinstance(rule, Rule) and value is not None and not rule.admits(value):
            raise refusal(where, rule.words, value)
    return value


def _convert_tuple(members: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    value = plain_sequence(value)
    if not isinstance(value, list | tuple):
        raise refusal(where, "be a list", value)
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise refusal(where, f"be a list of {len(members)} values", value)
    pairs = enumerate(zip(members, value, strict=True))
    return tuple(convert(member, item, f"{where}[{i}]") for i, (member, item) in pairs)


def _convert_dict(kind: Any, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise refusal(where, "be a section of keys", value)
    return {
        _convert_scalar(str, key, f"a key of {where}"): convert(kind, item, join(where, str(key)))
        for key, item in value.items()
    }


def _convert_scalar(kind: type, value: Any, where: str) -> Any:
    value = plain_number(value)
    if kind is str and isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str):
            return str.__str__(text)
    elif isinstance(value, bool):
        if kind is bool:
            return value
    elif kind is int and isinstance(value, numbers.Integral):
        return int(value)
    elif kind is float and isinstance(value, numbers.Real):
        return _finite(value, where)
    raise refusal(where, f"be {_NAMES[kind]}", value, f" ({type(value).__name__})")


def _finite(value: numbers.Real, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise refusal(where, "be a finite number", value)
    return number


def _plain_inside(value: Any) -> Any:
    """Turn the numbers and arrays in dicts, lists and tuples into those of Python's own."""
    if isinstance(value, dict):
        return {key: _plain_inside(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain_inside(item) for item in value)
    return plain_number(plain_sequence(value))


@functools.cache
def _cached_hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _hints(cls: Any) -> dict[str, Any]:
    return _cached_hints(cls)
