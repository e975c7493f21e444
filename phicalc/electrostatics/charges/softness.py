"""Softness of the links between atoms: how easily charge flows along them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from phicalc.electrostatics.charges.links import Links
from phicalc.electrostatics.head import Surroundings
from phicalc.electrostatics.laplacian import Laplacian
from phicalc.graph import AtomicGraph
from phicalc.nn import SILU_GAIN, Linear, RadialBasis

#: Hidden width, and number of radial functions.
_WIDTH, _RADIAL = 16, 8


class Softness(nn.Module):
    """``s_ij = s_max · sigmoid(b + w·silu(G h_i + G h_j + R b(r))) · u(r/r_ij)`` for each link.

    Symmetric in both atoms, between zero and s_max, and C² to zero at r_ij, where the link ends.

    Parameters
    ----------
    surroundings
        Facts about the rest of the potential.
    largest
        s_max in e²/V.
    """

    def __init__(self, surroundings: Surroundings, largest: float):
        super().__init__()
        self.largest = largest
        self.of_atom = Linear(surroundings.n_features, _WIDTH)
        self.basis = RadialBasis(_RADIAL, surroundings.cutoff)
        self.of_length = Linear(_RADIAL, _WIDTH)
        self.readout = Linear(_WIDTH, 1, 0.1 * SILU_GAIN)  # at first, all links are much alike
        self.offset = nn.Parameter(torch.tensor(-2.0))

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        graph: AtomicGraph,
        links: Links,
    ) -> Laplacian:
        """Return the network of links of a batch."""
        first, second = links.atoms
        atom = self.of_atom(node_features)
        hidden = atom.index_select(0, first) + atom.index_select(0, second)
        hidden = nn.functional.silu(hidden + self.of_length(self.basis(links.lengths.to(atom))))
        raw = (self.readout(hidden).squeeze(1) + self.offset).double()
        weights = self.largest * torch.sigmoid(raw) * links.fading
        return Laplacian(graph, links.atoms, weights)
