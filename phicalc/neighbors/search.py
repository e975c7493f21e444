"""Find all pairs of atoms within a cutoff, with any engine."""

import math
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from phicalc.neighbors.checks import as_numpy, check_finite, check_size, make_box
from phicalc.neighbors.engines import DEFAULT, ENGINES, search_of
from phicalc.neighbors.pairs import first_of_each, sort, within
from phicalc.neighbors.record import NeighborList


def available_engines() -> tuple[str, ...]:
    """Names of the engines whose library is installed."""
    return tuple(name for name in ENGINES if find_spec(name) is not None)


def neighbor_list(
    positions: Shaped[Tensor, "..."],
    cell: Shaped[Tensor, "..."],
    pbc: Shaped[Tensor, "..."],
    cutoff: float,
    *,
    engine: str = "auto",
    half: bool = False,
) -> NeighborList:
    """Find all pairs of atoms (and periodic images) closer than a cutoff, in one structure.

    Images of an atom are its neighbors too; the atom itself is not. Atoms may lie anywhere, inside
    or outside the cell, which may be smaller than the cutoff, skewed or left-handed. Coincident
    atoms are a pair of length 0. The list has no gradient; vectors are to be computed from it.

    Parameters
    ----------
    positions
        Shape (n_atoms, 3), float64, in Å.
    cell
        Shape (3, 3), float64, lattice vectors as rows in Å. Rows of open axes are not used.
    pbc
        Shape (3,), bool: which axes are periodic.
    cutoff
        In Å; pairs of exactly this length are left out.
    engine
        ``"vesin"``, ``"torch_cluster"``, ``"matscipy"``; ``"auto"`` is vesin. All of them run on
        the CPU (vesin on `torch.get_num_threads` threads); the result is moved to the device of
        the positions.
    half
        Return each unordered pair once: i < j, or for images of an atom the one whose first
        non-zero shift is positive.

    Raises
    ------
    ValueError
        A wrong shape, dtype or engine name; a cutoff that is not positive and finite; NaN or
        infinite coordinates, or larger than 1e9 Å; a periodic cell without volume or far smaller
        than the cutoff.
    ImportError
        The library of the engine is not installed.
    """
    if engine != "auto" and engine not in ENGINES:
        names = ", ".join(repr(name) for name in ("auto", *ENGINES))
        raise ValueError(f"`engine` must be one of {names}, got {engine!r}")
    if not (cutoff > 0 and math.isfinite(cutoff)):
        raise ValueError(f"`cutoff` must be a positive, finite length in Å, got {cutoff}")
    points = as_numpy("positions", positions, (None, 3), torch.float64)
    vectors = as_numpy("cell", cell, (3, 3), torch.float64)
    periodic = as_numpy("pbc", pbc, (3,), torch.bool)
    check_finite(points, vectors)
    box = make_box(vectors, periodic)
    margin = check_size(points, box, cutoff)

    if len(points):
        candidates = search_of(DEFAULT if engine == "auto" else engine)(
            points, box, cutoff + margin
        )
        pairs = sort(within(candidates, points, box, cutoff, margin))
        pairs = pairs.take(first_of_each(pairs)) if half else pairs
        index, shifts = np.stack([pairs.centers, pairs.neighbors]), pairs.shifts
    else:
        index, shifts = np.empty((2, 0), np.int64), np.empty((0, 3), np.int64)
    return NeighborList(
        torch.from_numpy(index).to(positions.device), torch.from_numpy(shifts).to(positions.device)
    )
