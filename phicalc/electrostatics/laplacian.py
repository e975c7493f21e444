"""The Laplacian of the graph of atoms: what flows along links, and Poisson's equation on them.

``L = D − W`` with a symmetric matrix W of weights of links and D the sums of its rows. L is
symmetric and positive; constants are in its null space; links from an atom to its own images
cancel. Two kinds of weights are in use:

- of the geometry alone, ``W_ij = Σ u(r/r_c)/r`` over the images of j within the cutoff r_c of i, u
  the envelope of `phicalc.nn` (C² to zero), in 1/Å: the Φ-Module's (`graph_laplacian`);
- softness in e²/V, read from the features of both atoms: that of charge which flows along links
  (`phicalc.electrostatics.charges.acks2`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from phicalc.graph import AtomicGraph, edge_vectors, sum_per_structure
from phicalc.nn import envelope


class Laplacian:
    """Laplacian of every structure of a batch, for one geometry (differentiable in it).

    Parameters
    ----------
    graph
        The batch.
    index
        Atoms that are linked, in both directions.
    weights
        Weight of each link in 1/Å or e²/V, the same in both directions.
    """

    def __init__(
        self,
        graph: AtomicGraph,
        index: Int64[Tensor, "2 n_links"],
        weights: Float64[Tensor, " n_links"],
    ):
        self.graph, self.index, self.weights = graph, index, weights

    def __call__(self, values: Float64[Tensor, "n_atoms c"]) -> Float64[Tensor, "n_atoms c"]:
        """Return L φ for several channels."""
        flow = self.weights[:, None] * self._steps(values)
        return torch.zeros_like(values).index_add(0, self.index[0], flow)

    def atomic_energies(self, values: Float64[Tensor, "n_atoms c"]) -> Float64[Tensor, "n_atoms c"]:
        """Share (e²Å) of each atom in ``½ φᵀLφ = ¼ Σ W_ij (φ_i − φ_j)²``; never negative."""
        energies = 0.25 * self.weights[:, None] * self._steps(values) ** 2
        return torch.zeros_like(values).index_add(0, self.index[0], energies)

    def flows(
        self, values: Float64[Tensor, " n_atoms"], drive: Float64[Tensor, " n_links"] | None = None
    ) -> Float64[Tensor, " n_links"]:
        """Return what flows along each link to its first atom; parameters as of `falls`."""
        return -self.weights * self.falls(values, drive)

    def falls(
        self, values: Float64[Tensor, " n_atoms"], drive: Float64[Tensor, " n_links"] | None = None
    ) -> Float64[Tensor, " n_links"]:
        """Return by how much the potential falls along each link, from its first atom on.

        Parameters
        ----------
        values
            Potential of the atoms in V.
        drive
            Further differences of potential along the links, of opposite sign in both directions.
        """
        steps = self._steps(values[:, None])[:, 0]
        return steps if drive is None else steps + drive

    def gathered(self, flows: Float64[Tensor, " n_links"]) -> Float64[Tensor, " n_atoms"]:
        """Sum of what flows to each atom."""
        return flows.new_zeros(self.graph.positions.shape[0]).index_add(0, self.index[0], flows)

    def _steps(self, values: Float64[Tensor, "n_atoms c"]) -> Float64[Tensor, "n_links c"]:
        """Differences ``φ_i − φ_j`` along the links."""
        first, second = self.index
        return values.index_select(0, first) - values.index_select(0, second)

    def degree(self) -> Float64[Tensor, " n_atoms"]:
        """Diagonal of L."""
        first, second = self.index
        weights = self.weights * (first != second)
        return weights.new_zeros(self.graph.n_atoms).index_add(0, first, weights)

    def matrix(self) -> Float64[Tensor, "s m m"]:
        """L itself, one padded matrix per structure; zero in empty slots."""
        assert self.graph.atom_of_slot is not None
        assert self.graph.slot_of_atom is not None
        n_structures, n_slots = self.graph.atom_of_slot.shape
        first, second = self.graph.slot_of_atom[self.index]
        entries = self.weights.new_zeros(n_structures * n_slots * n_slots)
        entries = entries.index_add(0, first * n_slots + second % n_slots, -self.weights)
        entries = entries.index_add(0, first * n_slots + first % n_slots, self.weights)
        return entries.reshape(n_structures, n_slots, n_slots)

    def sparse(self) -> Any:
        """L of the whole batch as a constant `scipy.sparse.csr_matrix`, on the CPU."""
        from scipy.sparse import csr_matrix

        first, second = self.index.cpu().numpy()
        weights = self.weights.detach().cpu().numpy()
        rows, columns = np.concatenate([first, first]), np.concatenate([second, first])
        shape = (self.graph.n_atoms, self.graph.n_atoms)
        return csr_matrix((np.concatenate([-weights, weights]), (rows, columns)), shape=shape)

    def frozen(self) -> Callable[[Float64[Tensor, "n_atoms c"]], Float64[Tensor, "n_atoms c"]]:
        """Return the function φ → L φ without derivatives, cheap to apply many times."""
        if self.weights.device.type != "cpu":
            return self
        matrix = self.sparse()
        return lambda values: torch.from_numpy(matrix @ values.numpy())


def graph_laplacian(graph: AtomicGraph, cutoff: float) -> Laplacian:
    """Laplacian of the edges of a batch that are shorter than `cutoff` (Å)."""
    return Laplacian(graph, graph.edge_index, _weights(edge_vectors(graph).norm(dim=1), cutoff))


def random_laplacian(graph: AtomicGraph, cutoff: float, links: int) -> Laplacian:
    """Control: the Laplacian of a random graph of links up to `cutoff` (Å), blind to the structure.

    Every atom is linked to about so many others, drawn from hashes of the numbers of atoms, with
    weights of the size that those of `graph_laplacian` have. What a network gains by this operator
    it gains by capacity, not by physics. It depends on the order of the atoms and is good for
    nothing else.
    """
    assert graph.slot_of_atom is not None
    assert graph.atom_of_slot is not None
    n_slots = graph.atom_of_slot.shape[1]
    ones = torch.ones_like(graph.positions[:, 0])
    counts = sum_per_structure(ones, graph)[graph.batch]
    place = torch.remainder(graph.slot_of_atom, max(n_slots, 1))
    start = torch.arange(graph.n_atoms, device=place.device) - place
    draws = torch.arange(max(1, links // 2), device=place.device)
    partner = (_hash(place[:, None], draws) * counts[:, None]).long() + start[:, None]
    first = torch.arange(graph.n_atoms, device=place.device)[:, None].expand_as(partner)
    lengths = cutoff * _hash(place[:, None], draws + 0.5) ** (1 / 3)
    weights = _weights(lengths.clamp(min=0.25 * cutoff), cutoff).flatten()
    both = torch.stack([first.flatten(), partner.flatten()])
    return Laplacian(graph, torch.cat([both, both.flip(0)], dim=1), torch.cat([weights, weights]))


def _weights(lengths: Float64[Tensor, "*links"], cutoff: float) -> Float64[Tensor, "*links"]:
    """Weight of links of these lengths in Å."""
    return envelope(lengths / cutoff) / lengths


def _hash(number: Shaped[Tensor, "*n"], draw: Shaped[Tensor, "*m"]) -> Float64[Tensor, "*k"]:
    """Numbers between 0 and 1 that look random and are always the same, on every device."""
    angle = 12.9898 * (number.double() + 1) + 78.233 * draw.double()
    return torch.frac(torch.sin(angle) * 43758.5453).abs()
