"""Pair distributions: how far atoms of two elements are from each other."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms

from phicalc.neighbors import neighbor_list


class PairDistribution(NamedTuple):
    """A histogram of distances between two kinds of atoms."""

    pair: tuple[str, str]
    """Symbols of the two elements."""
    radii: np.ndarray
    """Centres of the bins, in Å."""
    values: np.ndarray
    """g(r) where the structure is periodic in three directions, else a density of pairs in 1/Å."""
    normalised: bool
    """Whether `values` is g(r), which tends to 1."""


def informative_pair(atoms: Atoms) -> tuple[str, str] | None:
    """Choose the pair of elements that tells most about a structure; None below two atoms.

    The two most common heavy elements (Na–Cl); with one heavy element, that element with itself
    (O–O in water), or with hydrogen where there is only one such atom (O–H in one molecule).
    """
    counts = Counter(atoms.get_chemical_symbols())
    heavy = [symbol for symbol, _ in counts.most_common() if symbol != "H"]
    if len(heavy) >= 2:
        return heavy[0], heavy[1]
    symbol = heavy[0] if heavy else "H"
    if counts[symbol] >= 2:
        return symbol, symbol
    if heavy and counts["H"]:
        return symbol, "H"
    return (symbol, symbol) if atoms.pbc.any() and counts[symbol] else None


def pair_distribution(
    frames: Sequence[Atoms],
    pair: tuple[str, str],
    largest_radius: float = 8.0,
    bin_width: float = 0.05,
) -> PairDistribution:
    """Average the pair distribution of two elements over frames.

    Every periodic image within the radius counts, so cells of any size and shape are right; in
    structures periodic in three directions the radius is cut at half the smallest height of the
    cell (but not below 4 Å), since a copy of the cell adds no information.

    Parameters
    ----------
    frames
        Structures with the same atoms.
    pair
        Symbols of the two elements.
    largest_radius
        Å.
    bin_width
        Å.

    Raises
    ------
    ValueError
        If there is no frame, or no atom of one of the elements.
    """
    if not frames:
        raise ValueError("pair_distribution needs at least one frame, got none")
    missing = set(pair) - set(frames[0].get_chemical_symbols())
    if missing:
        raise ValueError(
            f"pair {pair}: {frames[0].get_chemical_formula()} has no {sorted(missing)[0]} atom"
        )
    periodic = bool(frames[0].pbc.all())
    if periodic:
        heights = [1 / np.linalg.norm(frame.cell.reciprocal(), axis=1) for frame in frames]
        largest_radius = min(largest_radius, max(float(np.min(heights)) / 2, 4.0))
    edges = np.linspace(0.0, largest_radius, max(int(round(largest_radius / bin_width)), 1) + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    total = np.zeros(len(shells))
    for frame in frames:
        counts = np.histogram(_distances(frame, pair, largest_radius), edges)[0].astype(float)
        if periodic:
            n_first, n_second = (np.sum(frame.symbols == symbol) for symbol in pair)
            counts *= frame.get_volume() / (n_first * n_second * shells)
        total += counts
    if periodic:
        total /= len(frames)
    else:
        total /= max(total.sum(), 1.0) * np.diff(edges)
    return PairDistribution(pair, (edges[1:] + edges[:-1]) / 2, total, periodic)


def _distances(atoms: Atoms, pair: tuple[str, str], cutoff: float) -> np.ndarray:
    """Distances (Å) from atoms of the first element to atoms and images of the second."""
    part = atoms[[symbol in pair for symbol in atoms.get_chemical_symbols()]]
    positions, cell = part.positions, part.cell.array
    found = neighbor_list(
        torch.from_numpy(positions),
        torch.from_numpy(cell),
        torch.from_numpy(part.pbc),
        cutoff,
    )
    (centres, neighbours), shifts = found.edge_index.numpy(), found.edge_shifts.numpy()
    symbols = np.array(part.get_chemical_symbols())
    wanted = (symbols[centres] == pair[0]) & (symbols[neighbours] == pair[1])
    vectors = positions[neighbours] + shifts @ cell - positions[centres]
    return np.linalg.norm(vectors[wanted], axis=1)
