"""Softness of the links between atoms: how easily charge flows along them."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.elements import covalent_radius
from phicalc.electrostatics.head import Surroundings
from phicalc.electrostatics.laplacian import Laplacian
from phicalc.graph import AtomicGraph, edge_vectors
from phicalc.nn import SILU_GAIN, Linear, RadialBasis, envelope

#: Hidden width, and number of radial functions.
_WIDTH, _RADIAL = 16, 8


class Softness(nn.Module):
    """``s_ij = s_max · sigmoid(b + w·silu(G h_i + G h_j + R b(r))) · u(r/r_ij)`` for each edge.

    Symmetric in both atoms, between zero and s_max, and C² to zero where the link ends: at r_ij,
    the sum of both covalent radii times a factor, or at the cutoff.

    Parameters
    ----------
    surroundings
        Facts about the rest of the potential.
    reach
        Longest link in sums of covalent radii.
    largest
        s_max in e²/V.
    """

    radii: Tensor

    def __init__(self, surroundings: Surroundings, reach: float, largest: float):
        super().__init__()
        n_features, cutoff = surroundings.n_features, surroundings.cutoff
        self.cutoff, self.reach, self.largest = cutoff, reach, largest
        radii = torch.tensor([covalent_radius(symbol) for symbol in surroundings.elements])
        self.register_buffer("radii", radii.double(), persistent=False)
        self.of_atom = Linear(n_features, _WIDTH)
        self.basis = RadialBasis(_RADIAL, cutoff)
        self.of_length = Linear(_RADIAL, _WIDTH)
        self.readout = Linear(_WIDTH, 1, 0.1 * SILU_GAIN)  # at first, all links are much alike
        self.offset = nn.Parameter(torch.tensor(-2.0))

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Laplacian:
        """Return the network of links of a batch; links between fragments carry nothing."""
        lengths = edge_vectors(graph).norm(dim=1)
        first, second = graph.edge_index
        atom = self.of_atom(node_features)
        hidden = atom.index_select(0, first) + atom.index_select(0, second)
        hidden = nn.functional.silu(hidden + self.of_length(self.basis(lengths.to(atom))))
        raw = (self.readout(hidden).squeeze(1) + self.offset).double()
        fading = envelope(lengths / self._ends(element, graph)) * _within_fragments(graph)
        return Laplacian(graph, graph.edge_index, self.largest * torch.sigmoid(raw) * fading)

    def _ends(
        self, element: Int64[Tensor, " n_atoms"], graph: AtomicGraph
    ) -> Float64[Tensor, " n_links"]:
        """Length in Å at which the link of each edge ends."""
        first, second = self.radii.double()[element][graph.edge_index]
        return (self.reach * (first + second)).clamp(max=self.cutoff)


def _within_fragments(graph: AtomicGraph) -> Float64[Tensor, " n_links"] | float:
    """1 where both atoms of an edge are of one fragment, else 0."""
    if graph.fragments is None:
        return 1.0
    first, second = graph.fragments.number[graph.edge_index]
    return (first == second).double()
