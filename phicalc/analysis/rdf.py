"""Pair distributions: how far atoms of two elements are from each other."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float

from phicalc.analysis.blocks import mean_of_blocks
from phicalc.neighbors import neighbor_list, pair_vectors_of_arrays

#: Å: peaks narrower than this are noise.
SMOOTHING = 0.06
#: Pieces of the run that are taken for independent of one another.
N_BLOCKS = 5


class PairDistribution(NamedTuple):
    """A histogram of distances between two kinds of atoms."""

    pair: tuple[str, str]
    """Symbols of the two elements."""
    radii: Float[np.ndarray, " n_bins"]
    """Centers of the bins, in Å."""
    values: Float[np.ndarray, " n_bins"]
    """g(r) where the structure is periodic in three directions, else a density of pairs in 1/Å."""
    normalized: bool
    """Whether `values` is g(r), which tends to 1."""
    error: Float[np.ndarray, " n_bins"]
    """Standard error of `values` over some blocks of the frames; NaN for a single frame."""
    neighbors: Float[np.ndarray, " n_bins"]
    """Mean number of atoms of the second element around one of the first, up to the far end of
    each bin."""

    def first_shell(self) -> tuple[float, float, float] | None:
        """Radius of the first peak, that of the minimum behind it (Å), and neighbors up to there.

        None where there is no such minimum.
        """
        from scipy.ndimage import gaussian_filter1d
        from scipy.signal import find_peaks

        width = self.radii[1] - self.radii[0] if len(self.radii) > 1 else 1.0
        smooth = gaussian_filter1d(self.values, max(SMOOTHING / width, 0.5))
        peaks, _ = find_peaks(np.append(smooth, 0.0), prominence=0.1 * smooth.max(initial=0.0))
        if not len(peaks):
            return None
        first = int(peaks[0])
        end = int(peaks[1]) if len(peaks) > 1 else len(smooth)
        minimum = first + int(np.argmin(smooth[first:end]))
        if minimum == len(smooth) - 1 and smooth[minimum] > 0.05 * smooth[first]:
            return None
        return float(self.radii[first]), float(self.radii[minimum]), float(self.neighbors[minimum])


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


def informative_pairs(atoms: Atoms, most: int = 6) -> list[tuple[str, str]]:
    """All pairs of elements of a structure that have a distribution, the most telling first.

    `informative_pair` leads; the others follow by how many pairs of atoms there are, those of heavy
    elements before those with hydrogen. At most `most` pairs.
    """
    counts = Counter(atoms.get_chemical_symbols())
    pairs = [
        pair
        for pair in combinations_with_replacement(sorted(counts, key=lambda s: (s == "H", s)), 2)
        if pair[0] != pair[1] or counts[pair[0]] > 1 or atoms.pbc.any()
    ]
    pairs.sort(key=lambda pair: (pair.count("H"), -counts[pair[0]] * counts[pair[1]]))
    first = informative_pair(atoms)
    if first is not None:
        pairs = [first, *(pair for pair in pairs if set(pair) != set(first))]
    return pairs[:most]


def pair_distribution(
    frames: Sequence[Atoms],
    pair: tuple[str, str],
    largest_radius: float = 8.0,
    bin_width: float = 0.05,
) -> PairDistribution:
    """Average the pair distribution of two elements: `pair_distributions` of one pair."""
    return pair_distributions(frames, [pair], largest_radius, bin_width)[0]


def pair_distributions(
    frames: Sequence[Atoms],
    pairs: Sequence[tuple[str, str]],
    largest_radius: float = 8.0,
    bin_width: float = 0.05,
) -> list[PairDistribution]:
    """Average the pair distributions of pairs of elements over frames.

    Every periodic image within the radius counts, so cells of any size and shape are right; in
    structures periodic in three directions the radius is cut at half the smallest height of the
    cell (but not below 4 Å), since a copy of the cell adds no information.

    Parameters
    ----------
    frames
        Structures with the same atoms.
    pairs
        Symbols of two elements each.
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
    counts = Counter(frames[0].get_chemical_symbols())
    for pair in pairs:
        missing = sorted(set(pair) - set(counts))
        if missing:
            formula = frames[0].get_chemical_formula()
            raise ValueError(f"pair {pair}: {formula} has no {missing[0]} atom")
    if frames[0].pbc.all():
        heights = [1 / np.linalg.norm(frame.cell.reciprocal(), axis=1) for frame in frames]
        largest_radius = min(largest_radius, max(float(np.min(heights)) / 2, 4.0))
    edges = np.linspace(0.0, largest_radius, max(int(round(largest_radius / bin_width)), 1) + 1)
    histograms = np.zeros((len(pairs), len(frames), len(edges) - 1))
    for number, frame in enumerate(frames):
        found = _distances(frame, pairs, largest_radius)
        histograms[:, number] = [np.histogram(distances, edges)[0] for distances in found]
    return [
        _distribution(frames, pair, edges, histogram)
        for pair, histogram in zip(pairs, histograms, strict=True)
    ]


def _distribution(
    frames: Sequence[Atoms],
    pair: tuple[str, str],
    edges: Float[np.ndarray, " n_edges"],
    histogram: Float[np.ndarray, "n_frames n_bins"],
) -> PairDistribution:
    """Normalize a histogram of distances, shape (n_frames, n_bins)."""
    n_first, n_second = (int(np.sum(frames[0].symbols == symbol)) for symbol in pair)
    neighbors = np.cumsum(histogram.mean(axis=0)) / n_first
    normalized = bool(frames[0].pbc.all())
    if normalized:
        volumes = np.array([frame.get_volume() for frame in frames])
        shells = 4 / 3 * np.pi * np.diff(edges**3)
        values = histogram * volumes[:, None] / (n_first * n_second * shells)
    else:
        values = histogram / (max(histogram.sum() / len(frames), 1e-300) * np.diff(edges))
    blocks = [block.mean(axis=0) for block in np.array_split(values, min(len(values), N_BLOCKS))]
    radii = (edges[1:] + edges[:-1]) / 2
    error = mean_of_blocks(np.array(blocks))[1]
    return PairDistribution(pair, radii, values.mean(axis=0), normalized, error, neighbors)


def _distances(
    atoms: Atoms, pairs: Sequence[tuple[str, str]], cutoff: float
) -> list[Float[np.ndarray, " n"]]:
    """Distances (Å) from atoms of the first element to atoms and images of the second, by pair."""
    wanted = {symbol for pair in pairs for symbol in pair}
    part = atoms[[symbol in wanted for symbol in atoms.get_chemical_symbols()]]
    positions, cell = part.positions, part.cell.array
    found = neighbor_list(
        torch.from_numpy(positions),
        torch.from_numpy(cell),
        torch.from_numpy(part.pbc),
        cutoff,
    )
    (centers, neighbors), shifts = found.edge_index.numpy(), found.edge_shifts.numpy()
    symbols = np.array(part.get_chemical_symbols())
    vectors = pair_vectors_of_arrays(positions, centers, neighbors, shifts, cell)
    distances = np.linalg.norm(vectors, axis=1)
    return [
        distances[(symbols[centers] == first) & (symbols[neighbors] == second)]
        for first, second in pairs
    ]
