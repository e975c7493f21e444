"""Softness of the links between atoms: how easily charge flows along them."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from phicalc.electrostatics.laplacian import Laplacian
from phicalc.graph import AtomicGraph, edge_vectors
from phicalc.nn import SILU_GAIN, Linear, RadialBasis, envelope

#: Hidden width, and number of radial functions.
_WIDTH, _RADIAL = 16, 8


class Softness(nn.Module):
    """``s_ij = s_max · sigmoid(b + w·silu(G h_i + G h_j + R b(r))) · u(r/r_c)`` for each edge.

    Symmetric in both atoms, between zero and s_max, and C² to zero at the cutoff.

    Parameters
    ----------
    n_features
        Width of the node features.
    cutoff
        r_c in Å.
    largest
        s_max in e²/V.
    """

    def __init__(self, n_features: int, cutoff: float, largest: float):
        super().__init__()
        self.cutoff, self.largest = cutoff, largest
        self.of_atom = Linear(n_features, _WIDTH)
        self.basis = RadialBasis(_RADIAL, cutoff)
        self.of_length = Linear(_RADIAL, _WIDTH)
        self.readout = Linear(_WIDTH, 1, SILU_GAIN)
        self.offset = nn.Parameter(torch.tensor(-2.0))

    def forward(
        self, node_features: Float[Tensor, "n_atoms n_features"], graph: AtomicGraph
    ) -> Laplacian:
        """Return the network of links of a batch; links between fragments carry nothing."""
        lengths = edge_vectors(graph).norm(dim=1)
        first, second = graph.edge_index
        atom = self.of_atom(node_features)
        hidden = atom.index_select(0, first) + atom.index_select(0, second)
        hidden = nn.functional.silu(hidden + self.of_length(self.basis(lengths.to(atom))))
        raw = (self.readout(hidden).squeeze(1) + self.offset).double()
        softness = self.largest * torch.sigmoid(raw) * envelope(lengths / self.cutoff)
        return Laplacian(graph, graph.edge_index, softness * _within_fragments(graph))


def _within_fragments(graph: AtomicGraph) -> Float64[Tensor, " n_links"] | float:
    """1 where both atoms of an edge are of one fragment, else 0."""
    if graph.fragments is None:
        return 1.0
    first, second = graph.fragments.number[graph.edge_index]
    return (first == second).double()
