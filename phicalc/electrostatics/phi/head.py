"""The Φ-Module as the electrostatic head of a potential, alone or together with Coulomb's law."""

from jaxtyping import Float, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.qeq import Electrostatics
from phicalc.electrostatics.charges.widths import GaussianWidths
from phicalc.electrostatics.phi.module import PhiModule
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.graph import AtomicGraph


class PhiHead(nn.Module):
    """Electrostatic head: node features → `PhiModule`, and ``½ ρᵀAρ`` of its charges if wanted.

    Parameters
    ----------
    phi
        The module.
    widths
        The Gaussian width of every charge in the Coulomb sum; None for no Coulomb energy.
    """

    def __init__(self, phi: PhiModule, widths: GaussianWidths | None = None):
        super().__init__()
        self.phi, self.widths = phi, widths

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
        if self.widths is not None:
            coulomb = CoulombSum(graph, self.widths(element)).atomic_energies(found.charges)
            potential, energies = potential + coulomb[0], energies + coulomb[1]
        return Electrostatics(found.charges, potential, energies, found.residual)
