"""Compare structures entry by entry: what was written with what was read."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.spacegroup import Spacegroup
from jaxtyping import Num, Shaped

#: Rounding of extended XYZ: absolute for numbers in columns, relative for all others.
COLUMN_ERROR, RELATIVE_ERROR = 6e-9, 1e-12
#: Arrays that every structure has.
OWN_ARRAYS = ("numbers", "positions")
_MISSING = object()


def differences(expected: Atoms, found: Atoms) -> list[str]:
    """Return the names of what differs between a structure and the same one read from a file.

    Numbers may differ by the rounding of extended XYZ, 1e-8 in columns (Å, eV, e, …).
    """
    pairs: dict[str, tuple[Any, Any]] = {
        "numbers": (expected.numbers, found.numbers),
        "positions": (expected.positions, found.positions),
        "cell": (expected.cell.array, found.cell.array),
        "pbc": (expected.pbc, found.pbc),
    }
    for kind in ("results", "info", "arrays"):
        before, after = entries_of(expected, kind), entries_of(found, kind)
        pairs |= {
            f"{kind}[{key!r}]": (before.get(key, _MISSING), after.get(key, _MISSING))
            for key in {**before, **after}
        }
    return [name for name, (one, other) in pairs.items() if not _same(one, other)]


def entries_of(atoms: Atoms, kind: str) -> dict[Hashable, Any]:
    """Return results, info or arrays: what a file may or may not hold."""
    if kind == "results":
        results = {} if atoms.calc is None else atoms.calc.results
        return {k: v for k, v in results.items() if k in all_properties and v is not None}
    entries = getattr(atoms, kind)
    return {k: v for k, v in entries.items() if kind == "info" or k not in OWN_ARRAYS}


def _plain_inside(value: Any) -> Any:
    """Turn the space group of a CIF file into its symbol, and NumPy's values inside others."""
    if isinstance(value, Spacegroup):
        return value.symbol
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def plain(value: Any) -> Any:
    """Return a value without NumPy's types: lists and numbers of Python in their place."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else _plain_inside(value)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal but for rounding; a list is equal to an array of its items."""
    one, other = _plain_inside(one), _plain_inside(other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    first, second = _as_array(one), _as_array(other)
    if first.dtype.kind in "iuf" and second.dtype.kind in "iuf":
        return _same_numbers(first, second)
    if first.ndim and second.ndim and "O" in first.dtype.kind + second.dtype.kind:
        return first.shape == second.shape and all(map(_same, first.ravel(), second.ravel()))
    return (
        first.shape == second.shape
        and first.dtype.kind == second.dtype.kind
        and bool(np.all(first == second))
    )


def _as_array(value: Any) -> Shaped[np.ndarray, "..."]:
    """Return an array; lists of unequal length become objects."""
    try:
        return np.asarray(value)
    except ValueError:
        ragged = np.empty(len(value), dtype=object)
        ragged[:] = value
        return ragged


def _same_numbers(one: Num[np.ndarray, "..."], other: Num[np.ndarray, "..."]) -> bool:
    """Whether numbers agree within the digits of a file; columns may lose an axis of length 1."""
    if one.ndim == 2 and one.shape[1] == 1:
        one = one[:, 0]
    error = max(RELATIVE_ERROR, 2 * float(np.finfo(one.dtype).eps) if one.dtype.kind == "f" else 0)
    return one.shape == other.shape and bool(
        np.allclose(one, other, rtol=error, atol=COLUMN_ERROR, equal_nan=True)
    )
