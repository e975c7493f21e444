"""Which atoms see which: one function, several engines, always the same pairs.

An engine is a function that finds the candidates a little beyond the cutoff. Everything that makes
the answers equal is done once, around it: checking the input, replacing the vectors of open axes,
the strict comparison with the cutoff, and sorting.
"""

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from torch import Tensor
from vesin import NeighborList as VesinNeighborList

from phicalc.hints import install_hint


class NeighborList(NamedTuple):
    """Directed pairs of atoms within a cutoff.

    The vector of a pair is ``positions[j] + edge_shifts @ cell - positions[i]``. Sorted by centre,
    then by neighbour and shift.
    """

    edge_index: Int64[Tensor, "2 n_edges"]
    """Row 0: centre i, row 1: neighbour j."""
    edge_shifts: Int64[Tensor, "n_edges 3"]
    """Lattice shift of the neighbour, in cells; 0 along open axes."""


class _Pairs(NamedTuple):
    """What an engine returns; it may contain pairs slightly longer than the cutoff."""

    centres: Int64[ndarray, " n_edges"]
    neighbors: Int64[ndarray, " n_edges"]
    shifts: Int64[ndarray, "n_edges 3"]
    distances: Float64[ndarray, " n_edges"]

    def take(self, chosen: ndarray) -> "_Pairs":
        """Return the chosen pairs (a mask or indices)."""
        return _Pairs(*(column[chosen] for column in self))


class _Box(NamedTuple):
    """A cell without zero vectors."""

    vectors: Float64[ndarray, "3 3"]
    """Rows; those of open axes are unit vectors perpendicular to all others."""
    inverse: Float64[ndarray, "3 3"]
    heights: Float64[ndarray, "3"]
    """Distance between opposite faces, in Å."""
    periodic: Bool[ndarray, "3"]


def available_engines() -> tuple[str, ...]:
    """Names of the engines whose library is installed."""
    return tuple(name for name in ENGINES if find_spec(name) is not None)


def neighbor_list(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    cutoff: float,
    *,
    engine: str = "auto",
    half: bool = False,
) -> NeighborList:
    """Find all pairs of atoms (and periodic images) closer than a cutoff, in one structure.

    Images of an atom are its neighbours too; the atom itself is not. Atoms may lie anywhere, inside
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
    points = _as_numpy("positions", positions, (None, 3), torch.float64)
    vectors = _as_numpy("cell", cell, (3, 3), torch.float64)
    periodic = _as_numpy("pbc", pbc, (3,), torch.bool)
    _check_finite(points, vectors)
    box = _make_box(vectors, periodic)
    margin = _check_size(points, box, cutoff)

    if len(points):
        candidates = _SEARCHES["vesin" if engine == "auto" else engine](
            points, box, cutoff + margin
        )
        pairs = _sort(_within(candidates, points, box, cutoff, margin))
        pairs = pairs.take(_first_of_each(pairs)) if half else pairs
        index, shifts = np.stack([pairs.centres, pairs.neighbors]), pairs.shifts
    else:
        index, shifts = np.empty((2, 0), np.int64), np.empty((0, 3), np.int64)
    return NeighborList(
        torch.from_numpy(index).to(positions.device), torch.from_numpy(shifts).to(positions.device)
    )


# Input --------------------------------------------------------------------------------------------


def _as_numpy(
    name: str, value: object, shape: tuple[int | None, ...], dtype: torch.dtype
) -> ndarray:
    """Return the values of a tensor after checking its shape (None: any size) and dtype."""
    wanted = f"({', '.join('n_atoms' if n is None else str(n) for n in shape)})"
    message = f"`{name}` must be a tensor of shape {wanted} and dtype {dtype}, got "
    if not isinstance(value, Tensor):
        raise ValueError(message + type(value).__name__)
    sizes = tuple(value.shape)
    fits = len(sizes) == len(shape) and all(
        m in (None, n) for n, m in zip(sizes, shape, strict=True)
    )
    if not fits or value.dtype != dtype:
        raise ValueError(message + f"shape {sizes} and dtype {value.dtype}")
    return value.detach().cpu().numpy()


def _check_finite(positions: Float64[ndarray, "n_atoms 3"], cell: Float64[ndarray, "3 3"]) -> None:
    """Raise for NaN and infinity."""
    if not np.isfinite(positions).all():
        atoms = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        shown = ", ".join(map(str, atoms[:10])) + (", …" if len(atoms) > 10 else "")
        raise ValueError(
            f"`positions` must be finite, got NaN or infinity for atoms {shown} "
            f"({len(atoms)} of {len(positions)}); correct the structure, or if this is a "
            "simulation that exploded, shorten its time step"
        )
    if not np.isfinite(cell).all():
        raise ValueError(f"`cell` must be finite, got {cell.tolist()}")


def _make_box(cell: Float64[ndarray, "3 3"], pbc: Bool[ndarray, "3"]) -> _Box:
    """Replace the vectors of open axes, which may be zero or anything, and invert."""
    n_periodic = int(pbc.sum())
    _, sizes, axes = np.linalg.svd(cell[pbc])
    if n_periodic and sizes[-1] <= 1e-10 * sizes[0]:
        raise ValueError(
            f"`cell` has no volume along its periodic axes: pbc {pbc.tolist()}, "
            f"cell {cell.tolist()}; set a cell, or pbc to False where the structure is open"
        )
    vectors = cell.copy()
    vectors[~pbc] = axes[n_periodic:]
    inverse = np.linalg.inv(vectors)
    return _Box(vectors, inverse, 1 / np.linalg.norm(inverse, axis=0), pbc)


def _check_size(positions: Float64[ndarray, "n_atoms 3"], box: _Box, cutoff: float) -> float:
    """Refuse what would exhaust memory or integers; return a bound of the error of distances."""
    n_images = math.prod(2 * math.ceil(cutoff / h) + 1 for h in box.heights[box.periodic])
    if n_images > 1_000_000:
        raise ValueError(
            f"`cell` is too small for a cutoff of {cutoff} Å: the distances between its faces, "
            f"{box.heights[box.periodic].tolist()} Å, need {n_images} images; check the unit"
        )
    farthest = float(np.abs(positions).max(initial=0.0))
    # Engines count images in 32 bits, and beyond 1e9 Å (10 cm) rounding reaches 1e-7 Å.
    limit = min([1e9, *(2.0**29 * box.heights[box.periodic]).tolist()])
    if farthest > limit:
        raise ValueError(
            f"`positions` must lie within {limit:.3g} Å of the origin, got {farthest:.3g} Å; wrap "
            "the atoms into the cell, or if this is a simulation that exploded, shorten its time "
            "step"
        )
    # Rounding while an engine moves atoms through a skewed cell, with room to spare.
    skew = float((np.linalg.norm(box.vectors, axis=1) / box.heights).max())
    return 1e-9 * cutoff + 1e-13 * skew * farthest


# Output -------------------------------------------------------------------------------------------


def _within(
    pairs: _Pairs, positions: Float64[ndarray, "n_atoms 3"], box: _Box, cutoff: float, margin: float
) -> _Pairs:
    """Drop pairs beyond the cutoff, measuring those near it in the same way for every engine."""
    near = np.flatnonzero(pairs.distances > cutoff - margin)
    close = pairs.take(near)
    # In this order of operations a pair and its reverse are equally long to the last bit.
    vectors = positions[close.neighbors] - positions[close.centres]
    vectors += (close.shifts[:, :, None] * box.vectors).sum(axis=1)
    outside = near[np.sqrt((vectors**2).sum(axis=1)) >= cutoff]
    if not outside.size:
        return pairs
    inside = np.ones(len(pairs.centres), dtype=bool)
    inside[outside] = False
    return pairs.take(inside)


def _sort(pairs: _Pairs) -> _Pairs:
    """Sort by centre, neighbour and shift, so that the order depends on nothing else."""
    if not len(pairs.centres):
        return pairs
    columns = [pairs.centres, pairs.neighbors, *pairs.shifts.T]
    key, room = np.zeros_like(pairs.centres), 1
    for column in columns:
        lowest = int(column.min())
        size = int(column.max()) - lowest + 1
        room *= size
        if room >= 2**63:
            return pairs.take(np.lexsort(columns[::-1]))
        key = key * size + (column - lowest)
    return pairs if (key[1:] > key[:-1]).all() else pairs.take(np.argsort(key))


def _first_of_each(pairs: _Pairs) -> Bool[ndarray, " n_edges"]:
    """Mask one of the two directions of every pair."""
    x, y, z = pairs.shifts.T
    forward = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    return (pairs.centres < pairs.neighbors) | ((pairs.centres == pairs.neighbors) & forward)


# Engines ------------------------------------------------------------------------------------------


def _enclose(
    positions: Float64[ndarray, "n_atoms 3"],
    box: _Box,
    cutoff: float,
    refuses: Callable[[Float64[ndarray, "3"]], bool],
) -> tuple[Float64[ndarray, "n_atoms 3"], Float64[ndarray, "3 3"], float]:
    """Give open axes a vector too, with so much vacuum that they count as periodic.

    Cell lists are made for periodic cells that are full of atoms: along open axes some become slow
    or wrong, in vacuum some fill the memory or divide by zero. Returns moved positions, such a cell
    and a longer cutoff if the numbers of bins per axis would be among those the engine refuses.
    """
    fractions = positions @ box.inverse
    closed = _close_gaps(fractions, box, 1.5 * cutoff)
    if closed is not fractions:
        fractions, positions = closed, closed @ box.vectors
    low, high = fractions.min(axis=0), fractions.max(axis=0)
    reach = cutoff
    while True:
        sizes = np.where(box.periodic, 1.0, high - low + 1.1 * reach)
        if not refuses(np.maximum(np.floor(sizes * box.heights / reach), 1.0)):
            break
        reach *= 1.1
    origin = np.where(box.periodic, 0.0, low - 0.5 * reach)
    return positions - origin @ box.vectors, sizes[:, None] * box.vectors, reach


def _close_gaps(
    fractions: Float64[ndarray, "n_atoms 3"], box: _Box, longest: float
) -> Float64[ndarray, "n_atoms 3"]:
    """Shorten gaps between atoms along open axes to a length in Å beyond the cutoff.

    No pair bridges them, so distances within the cutoff stay, and empty space costs nothing.
    """
    closed = fractions
    for axis in np.flatnonzero(~box.periodic):
        order = np.argsort(fractions[:, axis])
        places = fractions[order, axis]  # in Å: vectors of open axes have unit length
        surplus = np.cumsum(np.maximum(np.diff(places) - longest, 0.0))
        if len(surplus) and surplus[-1] > 0:
            closed = closed.copy() if closed is fractions else closed
            closed[order[1:], axis] = places[1:] - surplus
    return closed


def _vesin(positions: Float64[ndarray, "n_atoms 3"], box: _Box, cutoff: float) -> _Pairs:
    """Cell lists of vesin (https://github.com/Luthaf/vesin)."""

    def refuses(bins: ndarray) -> bool:
        # Version 0.6 shrinks more than 1e5 bins to that number and divides by zero in flat cells.
        total = bins.prod()
        return bool(total > 1e5 and bins.min() ** 3 * 1e5 < 64 * total)

    moved, vectors, reach = _enclose(positions, box, cutoff, refuses)
    finder = VesinNeighborList(
        cutoff=reach, full_list=True, sorted=True, n_threads=torch.get_num_threads()
    )
    found = finder.compute(moved, vectors, [True, True, True], "PSd", copy=False)
    # Without a copy the arrays belong to the finder: astype and copy make them ours.
    pairs, shifts = found[0].astype(np.int64), found[1].astype(np.int64)
    result = _Pairs(pairs[:, 0], pairs[:, 1], shifts, found[2].copy())
    return result if reach == cutoff else result.take(result.distances < cutoff)


def _matscipy(positions: Float64[ndarray, "n_atoms 3"], box: _Box, cutoff: float) -> _Pairs:
    """Cell lists of matscipy (https://github.com/libAtoms/matscipy)."""
    try:
        from matscipy.neighbours import neighbour_list
    except ImportError as error:
        raise _missing("matscipy", install_hint("materials"), error) from error
    # Every bin takes memory, also an empty one.
    moved, vectors, reach = _enclose(positions, box, cutoff, lambda bins: bool(bins.prod() > 1e6))
    centres, neighbors, shifts, distances = neighbour_list(
        "ijSd", positions=moved, cell=vectors, pbc=[True, True, True], cutoff=reach
    )
    result = _Pairs(
        centres.astype(np.int64), neighbors.astype(np.int64), shifts.astype(np.int64), distances
    )
    return result if reach == cutoff else result.take(result.distances < cutoff)


def _torch_cluster(positions: Float64[ndarray, "n_atoms 3"], box: _Box, cutoff: float) -> _Pairs:
    """Tree search of torch-cluster (https://github.com/rusty1s/pytorch_cluster) among images."""
    try:
        from torch_cluster import radius
    except (ImportError, OSError) as error:  # OSError: compiled against another torch
        command = install_hint("cluster", options="--no-build-isolation")
        raise _missing("torch_cluster", command, error) from error

    def search(centres: ndarray, ghosts: ndarray) -> tuple[ndarray, ndarray]:
        # It silently keeps only `max_num_neighbors` per centre; nobody has more than all of them.
        x, y = torch.from_numpy(ghosts), torch.from_numpy(centres)
        return tuple(radius(x=x, y=y, r=cutoff, max_num_neighbors=len(ghosts)).numpy())

    return _among_images(positions, box, cutoff, search)


def _among_images(
    positions: Float64[ndarray, "n_atoms 3"],
    box: _Box,
    cutoff: float,
    search: Callable[[ndarray, ndarray], tuple[ndarray, ndarray]],
) -> _Pairs:
    """Add the images that matter as ghost atoms, and let `search` find pairs without periodicity.

    `search` takes the wrapped atoms and the ghosts, and returns the two indices of every pair.
    """
    fractions = positions @ box.inverse
    wraps = np.where(box.periodic, np.floor(fractions), 0.0)
    wrapped = positions - wraps @ box.vectors
    atoms, images = _ghosts(fractions - wraps, box, cutoff)
    ghosts = wrapped[atoms] + images @ box.vectors
    centres, found = search(wrapped, ghosts)
    distances = np.linalg.norm(ghosts[found] - wrapped[centres], axis=1)
    neighbors = atoms[found]
    shifts = (images[found] + wraps[centres] - wraps[neighbors]).astype(np.int64)
    others = (centres != neighbors) | shifts.any(axis=1)
    return _Pairs(centres, neighbors, shifts, distances).take(others)


def _ghosts(
    fractions: Float64[ndarray, "n_atoms 3"], box: _Box, cutoff: float
) -> tuple[Int64[ndarray, " n_ghosts"], Int64[ndarray, "n_ghosts 3"]]:
    """Atoms and shifts of all images within the cutoff of the slab the atoms fill, axis by axis."""
    atoms = np.arange(len(fractions))
    images = np.zeros((len(fractions), 3), dtype=np.int64)
    for axis in np.flatnonzero(box.periodic):
        reach = cutoff / box.heights[axis] + 1e-6
        low, high = fractions[:, axis].min() - reach, fractions[:, axis].max() + reach
        steps = np.arange(math.floor(low) - 1, math.ceil(high) + 1)
        moved = fractions[atoms, axis][:, None] + steps
        rows, columns = np.nonzero((moved >= low) & (moved <= high))
        atoms, images = atoms[rows], images[rows]
        images[:, axis] = steps[columns]
    return atoms, images


def _missing(name: str, command: str, error: Exception) -> ImportError:
    """Say what to install."""
    return ImportError(
        f"the neighbour engine {name!r} needs a library that cannot be imported ({error}); "
        f"install it with: {command}, or use engine='vesin'"
    )


_SEARCHES: dict[str, Callable[[Float64[ndarray, "n_atoms 3"], _Box, float], _Pairs]] = {
    "vesin": _vesin,
    "torch_cluster": _torch_cluster,
    "matscipy": _matscipy,
}

#: Names of the engines; each is also the name of the library it uses.
ENGINES: tuple[str, ...] = tuple(_SEARCHES)
