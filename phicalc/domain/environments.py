"""Environments of atoms: the element, and the elements that it is bonded to.

``C(HHHC)`` is a carbon atom bonded to three hydrogen atoms and one carbon atom. Next to metals
every element is named once, ``Na(ClNa)``: numbers of neighbors say nothing about ions. An atom in
an environment without any like it in the training data is chemistry that a model never saw.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Int64

from phicalc.elements import is_metal
from phicalc.graph import AtomicGraph, edge_vectors
from phicalc.graph.parts import BOND_STRETCH

_IS_METAL = np.array([is_metal(symbol) for symbol in chemical_symbols])
_RADII = torch.from_numpy(np.asarray(covalent_radii, dtype=np.float64))


class Environments(NamedTuple):
    """The environments of the atoms of one structure."""

    names: tuple[str, ...]
    """Each environment once."""
    member: Int64[np.ndarray, " n_atoms"]
    """Number of the environment of each atom."""

    def first_outside(self, known: Iterable[str]) -> int | None:
        """Return the first atom whose environment is not among those known; None if all are."""
        new = [number for number, name in enumerate(self.names) if name not in known]
        if not new:
            return None
        outside = np.flatnonzero(np.isin(self.member, new))
        return int(outside[0]) if len(outside) else None


def environments_of(graph: AtomicGraph) -> Environments:
    """Return the environment of every atom.

    Parameters
    ----------
    graph
        One structure. Atoms are bonded up to 1.3 times the sum of their covalent radii; its edges
        must reach that far, or always be those of the same cutoff.
    """
    numbers = graph.atomic_numbers.cpu()
    first, second = graph.edge_index.cpu()
    longest = BOND_STRETCH * (_RADII[numbers[first]] + _RADII[numbers[second]])
    bonded = (edge_vectors(graph).detach().cpu().norm(dim=1) < longest).numpy()
    elements, kind = np.unique(numbers.numpy(), return_inverse=True)
    n_atoms, n_kinds = len(numbers), len(elements)
    slots = first.numpy()[bonded] * n_kinds + kind[second.numpy()[bonded]]
    counts = np.bincount(slots, minlength=n_atoms * n_kinds).reshape(n_atoms, n_kinds)
    metal = _IS_METAL[elements]
    ionic = metal[kind] | (counts[:, metal] > 0).any(axis=1)
    counts[ionic] = np.minimum(counts[ionic], 1)
    rows, member = np.unique(np.column_stack([kind, counts]), axis=0, return_inverse=True)
    symbols = [chemical_symbols[z] for z in elements]
    names = tuple(_name(symbols, row.tolist()) for row in rows)
    return Environments(names, member.reshape(-1).astype(np.int64))


def bonded_to(name: str) -> str:
    """Return the partners in the name of an environment in words: ``3 H and C``, or ``nothing``."""
    symbols = re.findall("[A-Z][a-z]?", name.partition("(")[2])
    counts = Counter(symbols).items()
    listed = [symbol if n == 1 else f"{n} {symbol}" for symbol, n in counts]
    return " and ".join(filter(None, [", ".join(listed[:-1]), *listed[-1:]])) or "nothing"


def _name(symbols: list[str], row: list[int]) -> str:
    """Write the number of an element and how many of each element it is bonded to."""
    around = "".join(symbol * n for symbol, n in zip(symbols, row[1:], strict=True))
    return f"{symbols[row[0]]}({around})"
