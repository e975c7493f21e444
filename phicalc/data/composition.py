"""Energies of the elements, fitted to total energies by composition."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from phicalc.graph import AtomicGraph


class ReferenceFit(NamedTuple):
    """Result of `fit_reference_energies`."""

    energies: Float64[np.ndarray, " n_elements"]
    """Energy per atom of each element in eV."""
    rank: int
    """Rank of the composition matrix."""
    residual: float
    """Root mean square of what remains, in eV per atom."""


def fit_reference_energies(
    counts: Float64[np.ndarray, "n_structures n_elements"],
    energies: Float64[np.ndarray, " n_structures"],
) -> ReferenceFit:
    """Fit one energy per element to total energies by least squares, in float64.

    Every structure counts alike, by its energy per atom. Where the compositions do not determine
    the energies of the elements (pure water knows only 2 E_H + E_O), the solution of smallest norm
    is taken: the sums are right all the same.

    Parameters
    ----------
    counts
        Number of atoms of each element in each structure.
    energies
        Total energies in eV.
    """
    weights = 1 / counts.sum(axis=1)
    weighted = counts * weights[:, None]
    solution, _, rank, _ = np.linalg.lstsq(weighted, energies * weights, rcond=1e-10)
    rest = energies * weights - weighted @ solution
    return ReferenceFit(solution, int(rank), float(np.sqrt(np.mean(rest**2))))


def count_elements(
    graphs: Sequence[AtomicGraph], atomic_numbers: Sequence[int]
) -> Float64[np.ndarray, "n_structures n_elements"]:
    """Count the atoms of each element in each single-structure graph."""
    numbers = [graph.atomic_numbers.cpu().numpy() for graph in graphs]
    return np.array([[(n == z).sum() for z in atomic_numbers] for n in numbers], dtype=np.float64)
