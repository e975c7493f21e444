"""The modes of the Φ-Module as electrostatic heads, alone or together with Coulomb's law."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from jaxtyping import Float, Int64
from torch import Tensor

from phicalc.electrostatics.charges.starting import StartingCharges, StartingSettings
from phicalc.electrostatics.head import Electrostatics, Head, Surroundings
from phicalc.electrostatics.phi.eigenpairs import are_unique
from phicalc.electrostatics.phi.module import PhiMode, PhiModule, PhiOutput, Spectral
from phicalc.electrostatics.phi.poisson import DENSE_POISSON
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.widths import GaussianWidths
from phicalc.graph import AtomicGraph
from phicalc.schema import AtLeast, Positive, checked, settings


class PhiHead(Head):
    """Electrostatic head: node features → `PhiModule`, and ``½ ρᵀAρ`` of its charges if wanted.

    Parameters
    ----------
    phi
        The module.
    widths
        The Gaussian width of every charge in the Coulomb sum; None for no Coulomb energy.
    """

    mode: ClassVar[PhiMode]
    solves_poisson = True

    def __init__(self, phi: PhiModule, widths: GaussianWidths | None = None):
        super().__init__()
        self.phi, self.widths = phi, widths

    @classmethod
    def from_settings(cls, settings: Any, surroundings: Surroundings) -> Head:
        """Return a head with random weights."""
        sizes = ("channels", "eigenpairs", "screening_floor")
        phi = PhiModule(
            surroundings.n_features,
            surroundings.cutoff,
            mode=cls.mode,
            scale=surroundings.energy_scale,
            links=surroundings.average_neighbors,
            takes_charges=cls.has_formal_charges,
            **{name: getattr(settings, name) for name in sizes if hasattr(settings, name)},
        )
        return cls(phi)

    @property
    def is_stationary(self) -> bool:
        """Whether the energy is stationary in the potential φ, which may lag one derivative."""
        return True

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        derivatives: int = 2,
    ) -> Electrostatics:
        """Return charges and energies of a batch; see `Head.forward`."""
        return self.with_coulomb(self.phi(node_features, graph, derivatives), element, graph)

    def with_coulomb(
        self, found: PhiOutput, element: Int64[Tensor, " n_atoms"], graph: AtomicGraph
    ) -> Electrostatics:
        """Add the Coulomb energy of the charges, if it is wanted, to what the module found."""
        potential, energies = found.potential.detach(), found.atomic_energies
        if self.widths is not None:
            coulomb = CoulombSum(graph, self.widths(element)).atomic_energies(found.charges)
            potential, energies = potential + coulomb[0], energies + coulomb[1]
        return Electrostatics(found.charges, potential, energies, found.residual)


class SpectralHead(PhiHead):
    """Amplitudes of the lowest eigenvectors of the Laplacian (the mode ``spectral``)."""

    @settings
    @dataclass(frozen=True)
    class Settings:
        """Settings of the mode ``spectral``."""

        eigenpairs: Annotated[int, AtLeast(1)] = 16
        """Number of eigenvectors of the Laplacian."""

        def __post_init__(self) -> None:
            """Check types and ranges."""
            checked(self)

    mode = "spectral"
    conserves_total_charge = False
    charges_differentiable = False

    def charges_are_unique(self, graph: AtomicGraph) -> bool:
        """Whether no eigenvalue beyond those used equals one of them in these structures."""
        field = self.phi.field
        assert isinstance(field, Spectral)
        return are_unique(self.phi.laplacian(graph), field.eigenpairs)


class DirichletHead(PhiHead):
    """Potentials read from the features, and the charges ``ρ = L φ`` (the mode ``dirichlet``)."""

    @settings
    @dataclass(frozen=True)
    class Settings:
        """Settings of the mode ``dirichlet``."""

        channels: Annotated[int, AtLeast(1)] = 4
        """Potentials of each atom."""

        def __post_init__(self) -> None:
            """Check types and ranges."""
            checked(self)

    mode = "dirichlet"
    conserves_total_charge = False


@settings
@dataclass(frozen=True)
class ScreenedSettings:
    """Settings of the modes that solve the screened Poisson equation."""

    channels: Annotated[int, AtLeast(1)] = 4
    """Charges of each atom."""
    screening_floor: Annotated[float, Positive] = 0.1
    """Smallest screening κ² in 1/Å."""

    def __post_init__(self) -> None:
        """Check types and ranges."""
        checked(self)


class ScreenedHead(PhiHead):
    """Charges read from the features, and the screened Poisson equation (the mode ``solve``)."""

    Settings = ScreenedSettings
    mode: ClassVar[PhiMode] = "solve"
    shifts_charges = True
    dense_atoms = DENSE_POISSON


class RandomGraphHead(ScreenedHead):
    """The same on a random graph: a control of equal size."""

    mode = "random"


class ScreenedCoulombHead(ScreenedHead):
    """The mode ``solve``, whose charges also interact by Coulomb's law."""

    @settings
    @dataclass(frozen=True)
    class Settings(ScreenedSettings):
        """Settings of the mode ``solve`` with Coulomb's law."""

        smearing: Annotated[float, Positive] = 1.0
        """Gaussian width of every charge in Å."""
        trained_smearing: bool = False
        """Train the width between half and twice `smearing`."""
        force_accuracy: Annotated[float, Positive] = 1e-4
        """Root mean square error in eV/Å that the Coulomb sums may leave in the forces."""

    has_coulomb = True

    @classmethod
    def from_settings(cls, settings: Any, surroundings: Surroundings) -> Head:
        """Return a head with random weights."""
        head = super().from_settings(settings, surroundings)
        head.widths = GaussianWidths([settings.smearing], settings.trained_smearing)
        head.force_accuracy = settings.force_accuracy
        return head


class LinkedPhiHead(PhiHead):
    """Starting charges in the first channel, of which each molecule keeps a whole number.

    Charges of the other modes answer to the total charge wherever the atoms are; these do not (see
    `phicalc.electrostatics.charges.starting`).
    """

    has_formal_charges = True
    polarize_cells: bool
    starting: StartingCharges

    @classmethod
    def from_settings(cls, settings: Any, surroundings: Surroundings) -> Head:
        """Return a head with random weights."""
        head = super().from_settings(settings, surroundings)
        assert isinstance(head, cls)
        head.starting = StartingCharges(surroundings, settings)
        head.polarize_cells = settings.polarize_cells
        return head

    @property
    def polarizes_cells(self) -> bool:  # type: ignore[override]  # a trait that depends on options
        """Whether fields may point along periodic axes."""
        return self.polarize_cells

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        derivatives: int = 2,
    ) -> Electrostatics:
        """Return charges and energies of a batch; see `Head.forward`."""
        start = self.starting(node_features, element, graph)
        found = self.phi(node_features, graph, derivatives, start.charges)
        made = self.with_coulomb(found, element, graph)
        return made._replace(polarization=start.polarization(), formal=start.formal)


class LinkedScreenedHead(LinkedPhiHead, ScreenedHead):
    """The mode ``solve`` of starting charges."""

    @settings
    @dataclass(frozen=True)
    class Settings(ScreenedSettings, StartingSettings):
        """Settings of the mode ``solve`` with links."""


class LinkedScreenedCoulombHead(LinkedPhiHead, ScreenedCoulombHead):
    """The mode ``solve`` of starting charges, which also interact by Coulomb's law."""

    @settings
    @dataclass(frozen=True)
    class Settings(ScreenedCoulombHead.Settings, StartingSettings):
        """Settings of the mode ``solve`` with links and Coulomb's law."""
