"""How new a candidate is: to a model, by its last features; without one, by distances."""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float64

from phicalc.checkpoint import load_model
from phicalc.domain.environments import environments_of
from phicalc.graph import AtomicGraph, edge_vectors, from_ase
from phicalc.inference.domain import domain_of

#: Å: centers and width of the Gaussians that distances are counted by.
CENTERS, WIDTH = np.linspace(0.6, 5.0, 23), 0.2


class Described(NamedTuple):
    """A candidate as its model sees it."""

    white: Float64[np.ndarray, "n_atoms n_last"]
    """Last features in the coordinates where the covariance of the training data is 1."""
    bounds: Float64[np.ndarray, " n_atoms"]
    """Largest norm of them in the training data, for the element of each atom."""
    strange: frozenset[str]
    """Bonded environments that the training data do not have."""

    @property
    def novelty(self) -> float:
        """Distance of the outermost atom from the training data; beyond 1 it is outside."""
        return float((np.linalg.norm(self.white, axis=1) / self.bounds).max(initial=0.0))


def describe(frames: Sequence[Atoms], model: Path) -> list[Described]:
    """Return candidates as a model sees them.

    Parameters
    ----------
    frames
        The candidates.
    model
        Folder of a model that has a last-layer uncertainty.

    Raises
    ------
    ValueError
        If it has none.
    """
    potential, card = load_model(model, device="cpu")
    potential.eval()
    if potential.uncertainty is None:
        raise ValueError(
            f"model {card.name!r} has no uncertainty to choose frames by: run phicalc uncertainty "
            f"{model} first, or set select: random"
        )
    known, bounds = domain_of(card).environments, potential.uncertainty.bounds.double()
    found = []
    for atoms in frames:
        graph = potential.prepare(from_ase(atoms, potential.cutoff))
        with torch.no_grad():
            features = potential(graph, derivatives=0).last_features
            white = potential.uncertainty.whitened(features)
        largest = bounds[potential.element_of_number[graph.atomic_numbers]]
        found.append(Described(white.numpy(), largest.numpy(), _strange(graph, known)))
    return found


def _strange(graph: AtomicGraph, known: frozenset[str] | None) -> frozenset[str]:
    """Return the bonded environments that the training data do not have, if these are known."""
    return frozenset() if known is None else environments_of(graph).outside(known)


def fingerprints(frames: Sequence[Atoms]) -> Float64[np.ndarray, "n_frames n_fingerprint"]:
    """Return numbers that are alike for like structures: smoothed counts of distances in pairs.

    They need no model. Counts are per atom.
    """
    elements = sorted({symbol for atoms in frames for symbol in atoms.symbols})
    pairs = list(combinations_with_replacement(elements, 2))
    return np.array([_fingerprint(atoms, pairs) for atoms in frames])


def _fingerprint(
    atoms: Atoms, pairs: Sequence[tuple[str, str]]
) -> Float64[np.ndarray, " n_fingerprint"]:
    """Return the numbers of one structure."""
    graph = from_ase(atoms, float(CENTERS[-1] + WIDTH))
    first, second = graph.edge_index.numpy()
    lengths = edge_vectors(graph).norm(dim=1).numpy()
    symbols = np.array(atoms.get_chemical_symbols())
    counts = np.exp(-0.5 * ((lengths[:, None] - CENTERS) / WIDTH) ** 2)
    rows = []
    for one, other in pairs:
        chosen = (symbols[first] == one) & (symbols[second] == other)
        rows.append(counts[chosen].sum(axis=0) / len(atoms))
    return np.concatenate(rows)
