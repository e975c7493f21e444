"""The Φ-Module as the electrostatic head of a potential, alone or together with Coulomb's law."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from phicalc.electrostatics.phi import PhiModule
from phicalc.electrostatics.qeq import Electrostatics
from phicalc.electrostatics.sums import CoulombSum
from phicalc.graph import AtomicGraph


class PhiHead(nn.Module):
    """Electrostatic head: node features → `PhiModule`, and ``½ ρᵀAρ`` of its charges if wanted.

    Parameters
    ----------
    phi
        The module.
    smearing
        Gaussian width σ in Å of every charge in the Coulomb sum; None for no Coulomb energy.
    """

    def __init__(self, phi: PhiModule, smearing: float | None = None):
        super().__init__()
        self.phi, self.width = phi, smearing

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        order: int = 2,
    ) -> Electrostatics:
        """Charges and energies of a batch; `order` and one more derivatives are exact."""
        found = self.phi(node_features, graph, order + 1)
        potential, energies = found.potential.detach(), found.atomic_energies
        if self.width is not None:
            smearing = torch.full_like(found.charges, self.width)
            coulomb = CoulombSum(graph, smearing).atomic_energies(found.charges)
            potential, energies = potential + coulomb[0], energies + coulomb[1]
        return Electrostatics(found.charges, potential, energies, found.residual)
