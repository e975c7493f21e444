"""Latent charges of which each molecule keeps a whole number: they flow along links once."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxtyping import Float, Int64
from torch import Tensor

from phicalc.electrostatics.charges.formal import FormalCharges
from phicalc.electrostatics.charges.increments import BondIncrements
from phicalc.electrostatics.charges.links import LinkFinder
from phicalc.electrostatics.head import Electrostatics, Head, Polarization, Surroundings
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
    class Settings:
        """Settings of latent charges with links."""

        formal_charges: Literal["environment", "element"] = "environment"
        """Whether formal charges depend on the environment of an atom, or on its element only."""
        link_range: Annotated[float, Positive] = 1.75
        """Length of the longest link in sums of the covalent radii of both atoms; none is longer
        than the cutoff."""
        electronegativity_range: Annotated[float, Positive] = 5.0
        """Largest difference in V of the potentials that drive the flows between atoms of one
        element, to either side."""
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
    has_coulomb = True
    shifts_charges = True
    has_formal_charges = True

    def __init__(self, surroundings: Surroundings, settings: Settings):
        super().__init__()
        n_features, n_elements = surroundings.n_features, len(surroundings.elements)
        self.settings, self.force_accuracy = settings, settings.force_accuracy
        self.widths = GaussianWidths([settings.smearing], settings.trained_smearing)
        environment = settings.formal_charges == "environment"
        self.formal = FormalCharges(n_features, n_elements, environment)
        self.links = LinkFinder(surroundings, settings.link_range)
        self.increments = BondIncrements(surroundings, settings.electronegativity_range)

    @classmethod
    def from_settings(cls, settings: Settings, surroundings: Surroundings) -> Head:
        """Return a head that starts from tabulated electronegativities."""
        return cls(surroundings, settings)

    @property
    def polarizes_cells(self) -> bool:  # type: ignore[override]  # a trait that depends on options
        """Whether fields may point along periodic axes: formal charges must not move there."""
        return self.settings.formal_charges == "element"

    def prepare(self, graph: AtomicGraph, element: Int64[Tensor, " n_atoms"]) -> AtomicGraph:
        """Add the links."""
        return graph._replace(links=self.links.chosen(graph, element))

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        derivatives: int = 2,
    ) -> Electrostatics:
        """Return charges and energies of a batch; all derivatives are exact."""
        formal = self.formal(node_features, element, graph)
        increments = self.increments(node_features, element, graph, self.links(graph, element))
        q = increments.added_to(formal.charges)
        coulomb = CoulombSum(graph, self.widths(element))
        return Electrostatics(
            q,
            *coulomb.atomic_energies(q),
            polarization=Polarization(formal.charges, increments.dipoles()),
            formal=formal,
        )
