"""Environments of atoms: the element, and the elements that it is bonded to.

``C(HHHC)`` is a carbon atom bonded to three hydrogen atoms and one carbon atom. Next to metals
every element is named once, ``Na(ClNa)``: numbers of neighbors say nothing about ions. An atom in
an environment without any like it in the training data is chemistry that a model never saw.

Between a stretched bond and two atoms that merely touch there is no line. A neighbor at 1.2 to 1.5
times the sum of the covalent radii may be bonded or not, so that an atom may be read in several
ways. It is outside only if the training data have none of them; and what only such readings would
add does not become known: a vibrating methane is no proof of methyl and hydrogen atoms.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Bool, Float64, Int64

from phicalc.elements import is_metal
from phicalc.graph import AtomicGraph, edge_vectors
from phicalc.graph.parts import BOND_STRETCH

#: Multiples of the sum of covalent radii: nearer atoms are bonded, farther ones are not.
SURELY_BONDED, SURELY_APART = 1.2, 1.5

_IS_METAL = np.array([is_metal(symbol) for symbol in chemical_symbols])
_RADII = torch.from_numpy(np.asarray(covalent_radii, dtype=np.float64))


class Environments(NamedTuple):
    """The environments of the atoms of one structure, each with the ways to read it."""

    names: tuple[str, ...]
    """Of each environment, with bonds up to 1.3 times the sum of the covalent radii."""
    member: Int64[np.ndarray, " n_atoms"]
    """Number of the environment of each atom."""
    symbols: tuple[str, ...]
    """Elements of the structure."""
    element: Int64[np.ndarray, " n_environments"]
    """Number of the element of each environment."""
    fewest: Int64[np.ndarray, "n_environments n_elements"]
    """Neighbors of each element that are surely bonded."""
    most: Int64[np.ndarray, "n_environments n_elements"]
    """Neighbors of each element that may be."""

    @property
    def sure(self) -> frozenset[str]:
        """Names of the environments that can be read in one way only."""
        certain = (self.fewest == self.most).all(axis=1)
        return frozenset(name for name, one in zip(self.names, certain, strict=True) if one)

    def outside(self, known: Collection[str]) -> frozenset[str]:
        """Return the names of the environments that no way of reading makes one of those known."""
        inside = self._known(known)
        return frozenset(name for name, one in zip(self.names, inside, strict=True) if not one)

    def first_outside(self, known: Collection[str]) -> int | None:
        """Return the first atom that no way of reading makes one of those known; None if none."""
        outside = np.flatnonzero(~self._known(known)[self.member])
        return int(outside[0]) if len(outside) else None

    def _known(self, known: Collection[str]) -> Bool[np.ndarray, " n_environments"]:
        """Whether each environment can be read as one of those known."""
        element, counts, ionic = _table(frozenset(known), self.symbols)
        fewest, most = (
            np.where(ionic[:, None], np.minimum(each[:, None], 1), each[:, None])
            for each in (self.fewest, self.most)
        )
        fits = ((fewest <= counts) & (counts <= most)).all(axis=2)
        return (fits & (self.element[:, None] == element)).any(axis=1)


def environments_of(graph: AtomicGraph) -> Environments:
    """Return the environment of every atom.

    Parameters
    ----------
    graph
        One structure. Neighbors count up to 1.5 times the sum of covalent radii; its edges must
        reach that far, or always be those of the same cutoff.
    """
    elements, kind = np.unique(graph.atomic_numbers.cpu().numpy(), return_inverse=True)
    metal, stretch = _IS_METAL[elements], _stretches(graph)
    fewest, usual, most = (
        _neighbors(graph, kind, len(elements), stretch < limit)
        for limit in (SURELY_BONDED, BOND_STRETCH, SURELY_APART)
    )
    usual = _once(usual, metal[kind] | (usual[:, metal] > 0).any(axis=1))
    ionic = metal[kind] | (fewest[:, metal] > 0).any(axis=1)
    columns = [kind, usual, _once(fewest, ionic), _once(most, ionic)]
    rows, member = np.unique(np.column_stack(columns), axis=0, return_inverse=True)
    named, fewest, most = np.split(rows, np.cumsum([1 + len(elements), len(elements)]), axis=1)
    symbols = tuple(chemical_symbols[z] for z in elements)
    names = tuple(_name(symbols, row) for row in named.tolist())
    member = member.reshape(-1).astype(np.int64)
    return Environments(names, member, symbols, named[:, 0], fewest, most)


def environments_of_frames(graphs: Iterable[AtomicGraph]) -> frozenset[str]:
    """Return the environments that training data make known, such that all their atoms are inside.

    Those that can be read in one way only, and of the other atoms the environments of those that
    could not be read as one of these.

    Parameters
    ----------
    graphs
        One for each structure, as for `environments_of`.
    """
    found = [environments_of(graph) for graph in graphs]
    sure = frozenset().union(*(each.sure for each in found))
    return sure.union(*(each.outside(sure) for each in found))


def bonded_to(name: str) -> str:
    """Return the partners in the name of an environment in words: ``3 H and C``, or ``nothing``."""
    counts = Counter(_partners(name)).items()
    listed = [symbol if n == 1 else f"{n} {symbol}" for symbol, n in counts]
    return " and ".join(filter(None, [", ".join(listed[:-1]), *listed[-1:]])) or "nothing"


def _stretches(graph: AtomicGraph) -> Float64[np.ndarray, " n_edges"]:
    """Return the length of every edge over the sum of the covalent radii."""
    first, second = graph.atomic_numbers.cpu()[graph.edge_index.cpu()]
    lengths = edge_vectors(graph).detach().cpu().norm(dim=1)
    return np.asarray(lengths / (_RADII[first] + _RADII[second]), dtype=np.float64)


def _neighbors(
    graph: AtomicGraph,
    kind: Int64[np.ndarray, " n_atoms"],
    n_elements: int,
    bonded: Bool[np.ndarray, " n_edges"],
) -> Int64[np.ndarray, "n_atoms n_elements"]:
    """Count the neighbors of each element of every atom."""
    first, second = graph.edge_index.cpu().numpy()[:, bonded]
    slots = first * n_elements + kind[second]
    return np.bincount(slots, minlength=len(kind) * n_elements).reshape(len(kind), n_elements)


def _once(
    counts: Int64[np.ndarray, "n n_elements"], chosen: Bool[np.ndarray, " n"]
) -> Int64[np.ndarray, "n n_elements"]:
    """Return counts with every element at most once in some rows."""
    return np.where(chosen[:, None], np.minimum(counts, 1), counts)


def _partners(name: str) -> list[str]:
    """Return the symbols between the brackets of the name of an environment."""
    return re.findall("[A-Z][a-z]?", name.partition("(")[2])


@lru_cache(maxsize=256)
def _table(
    known: frozenset[str], symbols: tuple[str, ...]
) -> tuple[
    Int64[np.ndarray, " n_known"],
    Int64[np.ndarray, "n_known n_elements"],
    Bool[np.ndarray, " n_known"],
]:
    """Return element, neighbors of each element, and whether metals are among them, of names.

    Those with other elements than `symbols` are left out.
    """
    split = [(name.partition("(")[0], _partners(name)) for name in sorted(known)]
    rows = [(one, others) for one, others in split if {one, *others} <= set(symbols)]
    element = np.array([symbols.index(one) for one, _ in rows], dtype=np.int64)
    counts = np.array([[others.count(s) for s in symbols] for _, others in rows], dtype=np.int64)
    ionic = np.array([any(map(is_metal, (one, *others))) for one, others in rows], dtype=bool)
    return element, counts.reshape(len(rows), len(symbols)), ionic


def _name(symbols: tuple[str, ...], row: list[int]) -> str:
    """Write the number of an element and how many of each element it is bonded to."""
    around = "".join(symbol * n for symbol, n in zip(symbols, row[1:], strict=True))
    return f"{symbols[row[0]]}({around})"
