"""Sentences that refuse a setting: its name, what it takes, what it got, what comes near."""

import dataclasses
import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12


def check_keys(given: Iterable[Any], known: Iterable[str], where: str) -> None:
    """Refuse keys that are not among those known, naming the near ones and all that are.

    Raises
    ------
    ValueError
        For the first unknown key.
    """
    known = list(known)
    for key in given:
        if key not in known:
            raise ValueError(
                f"unknown key {join(where, str(key))!r}{hint(key, known) or '.'} "
                f"Known keys: {', '.join(sorted(known))}"
            )


def check_names(
    fields: list[dataclasses.Field], given: Iterable[Any], where: str, besides: Iterable[str] = ()
) -> None:
    """Refuse unknown names, and say which are missing; those `besides` are given by position.

    Raises
    ------
    ValueError
        For the first unknown name, and for all that are missing.
    """
    check_keys(given, [field.name for field in fields], where)
    there = {*given, *besides}
    missing = [join(where, f.name) for f in fields if _is_required(f) and f.name not in there]
    if missing:
        verb = "it has no default" if len(missing) == 1 else "they have no defaults"
        raise ValueError(f"missing key {', '.join(map(repr, missing))}; {verb}")


def _is_required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def join(where: str, key: str) -> str:
    """Return the path of a key in the section `where`."""
    return f"{where}.{key}" if where else key


def hint(word: Any, known: Iterable[Any]) -> str:
    """Name what comes near a word, whatever the case of its letters; empty if nothing does."""
    spellings, word = {str(one).lower(): one for one in known}, str(word).lower()
    near = [word] if word in spellings else difflib.get_close_matches(word, spellings, n=2)
    return f". Did you mean {' or '.join(repr(spellings[one]) for one in near)}?" if near else ""


def refusal(where: str, expected: str, value: Any, note: str = "") -> ValueError:
    """Return the error "'where' must *expected*, got *value*", with a note at its end."""
    return ValueError(f"{where!r} must {expected}, got {shown(value)}{note}")


def shown(value: Any) -> str:
    """Return a value in a few words on one line."""
    return " ".join(_SHORT.repr(value).split())
