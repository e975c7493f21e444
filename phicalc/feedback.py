"""How charges enter the short-range energy."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.backbone import NequIP
from phicalc.graph import AtomicGraph, mean_per_structure
from phicalc.nn import Linear


class ChargeEmbedding(nn.Module):
    """Adds a linear image of an atom's charge and of the mean charge to its features.

    The mean over the structure, not the total, makes the energy of a repeated cell extensive.
    """

    def __init__(self, n_features: int):
        super().__init__()
        self.linear = Linear(2, n_features)

    def forward(
        self,
        features: Float[Tensor, "n_atoms c"],
        embedding: Float[Tensor, "n_atoms channels"],
        charges: Float64[Tensor, " n_atoms"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Float[Tensor, "n_atoms c"]:
        """Update the features; `embedding` and `element` are not needed here."""
        mean_charge = mean_per_structure(charges, graph)[graph.batch]
        both = torch.stack([charges, mean_charge], dim=1)
        return features + self.linear(both.to(features))


class ChargeNetwork(nn.Module):
    """Second network, whose input is the element and the charge of each atom (NequIP-LR).

    Charges are expanded in n Gaussians ``exp(−(q − μ_k)²/w²)``, w = (μ_n − μ_1)/n.

    Parameters
    ----------
    network
        The network itself.
    channels
        Width of its input.
    n_gaussians, charge_range
        Number of Gaussians, and the centres of the first and the last in e.

    References
    ----------
    Maruf et al., arXiv:2503.17949.
    """

    centres: Tensor

    def __init__(
        self, network: NequIP, channels: int, n_gaussians: int, charge_range: tuple[float, float]
    ):
        super().__init__()
        low, high = charge_range
        self.width = (high - low) / n_gaussians
        centres = torch.linspace(low, high, n_gaussians, dtype=torch.float64)
        self.register_buffer("centres", centres, persistent=False)
        self.linear = Linear(channels + n_gaussians, channels)
        self.network = network

    def forward(
        self,
        features: Float[Tensor, "n_atoms c"],
        embedding: Float[Tensor, "n_atoms channels"],
        charges: Float64[Tensor, " n_atoms"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
    ) -> Float[Tensor, "n_atoms c_out"]:
        """Features of the second network; those of the first act only through the charges."""
        distance = (charges[:, None] - self.centres) / self.width
        expansion = torch.exp(-(distance**2)).to(features)
        inputs = self.linear(torch.cat([embedding, expansion], dim=1))
        return self.network(inputs, element, graph)
