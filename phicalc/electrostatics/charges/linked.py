"""Latent charges of which each molecule keeps a whole number: they flow along links once."""

from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Float, Int64
from torch import Tensor

from phicalc.electrostatics.charges.starting import StartingCharges, StartingSettings
from phicalc.electrostatics.head import Electrostatics, Head, Surroundings
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.widths import GaussianWidths
from phicalc.graph import AtomicGraph
from phicalc.schema import Positive, checked, settings


class LinkedLatentCharges(Head):
    """Electrostatic head: node features → charges ``q = z − L v`` → Coulomb energy ``½ qᵀAq``.

    Formal charges z, and what flows along links with the Laplacian L, driven by potentials v that
    are read from the features: ``p_ij = −s_ij (v_i − v_j)``. Unlike those of `LatentCharges`, the
    charges of distant molecules do not depend on each other; unlike those of `TransferredCharges`,
    they answer to their neighborhood and to no field.

    Parameters
    ----------
    surroundings
        Facts about the rest of the potential.
    settings
        See `Settings`.
    """

    @settings
    @dataclass(frozen=True)
    class Settings(StartingSettings):
        """Settings of latent charges with links."""

        smearing: Annotated[float, Positive] = 1.0
        """Gaussian width of every charge in Å."""
        trained_smearing: bool = False
        """Train the width between half and twice `smearing`."""
        force_accuracy: Annotated[float, Positive] = 1e-4
        """Root mean square error in eV/Å that the Coulomb sums may leave in the forces."""

        def __post_init__(self) -> None:
            """Check words, types and ranges."""
            checked(self)

    widths: GaussianWidths
    starting: StartingCharges
    has_coulomb = True
    works_unseen = True
    shifts_charges = True
    has_formal_charges = True

    def __init__(self, surroundings: Surroundings, settings: Settings):
        super().__init__()
        self.settings, self.force_accuracy = settings, settings.force_accuracy
        self.widths = GaussianWidths([settings.smearing], settings.trained_smearing)
        self.starting = StartingCharges(surroundings, settings)

    @classmethod
    def from_settings(cls, settings: Settings, surroundings: Surroundings) -> Head:
        """Return a head that starts from tabulated electronegativities."""
        return cls(surroundings, settings)

    @property
    def polarizes_cells(self) -> bool:  # type: ignore[override]  # a trait that depends on options
        """Whether fields may point along periodic axes."""
        return self.settings.polarize_cells

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        derivatives: int = 2,
    ) -> Electrostatics:
        """Return charges and energies of a batch; all derivatives are exact."""
        start = self.starting(node_features, element, graph)
        coulomb = CoulombSum(graph, self.widths(element))
        return Electrostatics(
            start.charges,
            *coulomb.atomic_energies(start.charges),
            polarization=start.polarization(),
            formal=start.formal,
        )
