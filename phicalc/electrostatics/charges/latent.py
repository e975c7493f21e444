"""Latent charges: read from the features of each atom, without equilibration."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.qeq import Electrostatics
from phicalc.electrostatics.charges.widths import GaussianWidths
from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.graph import AtomicGraph


class LatentCharges(nn.Module):
    """Electrostatic head: node features → charges → Coulomb energy ``½ qᵀAq``.

    ``q_i = w·h_i + q⁰_Z``, shifted by the same amount on every atom of a structure (or fragment) so
    that they sum to its charge. All charges are Gaussians of one width. Charges see their
    neighbourhood and nothing else: a distant ion does not move them, as it does in
    `ChargeEquilibration`.

    Parameters
    ----------
    n_features
        Width of the node features.
    n_elements
        Elements of the model.
    widths
        The Gaussian width of every charge.

    References
    ----------
    Cheng, npj Computational Materials 11, 80 (2025) (latent Ewald summation).
    """

    def __init__(self, n_features: int, n_elements: int, widths: GaussianWidths):
        super().__init__()
        self.readout = nn.Linear(n_features, 1, bias=False)
        self.offset = nn.Parameter(torch.zeros(n_elements))
        self.widths = widths

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        order: int = 2,
    ) -> Electrostatics:
        """Charges and energies of a batch; charges are exact to any `order` of derivatives."""
        raw = (self.readout(node_features).squeeze(1) + self.offset[element]).double()
        constraints = ChargeConstraints(graph)
        n_atoms = constraints.total(torch.ones_like(raw)).clamp(min=1)
        excess = (constraints.total(raw) - constraints.net_charge) / n_atoms
        q = raw - constraints.at_atoms(excess)
        coulomb = CoulombSum(graph, self.widths(element))
        return Electrostatics(q, *coulomb.atomic_energies(q))
