"""What an electrostatic head is: node features → charges, potential and energy.

A head says by its traits what it can do, so that nobody has to ask for its name. To add one, write
a subclass of `Head` with its own frozen dataclass `Head.Settings` in a file of its own: an import
path ``package.module:Class`` in the settings finds it, and an entry in `HEADS` gives it a short
name.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.widths import GaussianWidths
from phicalc.graph import AtomicGraph
from phicalc.kinds import Kind, NoSettings

#: Short names of the heads of this package.
HEADS = {
    "none": "phicalc.electrostatics.head:NoElectrostatics",
    "acks2": "phicalc.electrostatics.charges.acks2:TransferredCharges",
    "qeq": "phicalc.electrostatics.charges.qeq:ChargeEquilibration",
    "latent": "phicalc.electrostatics.charges.latent:LatentCharges",
    "latent+links": "phicalc.electrostatics.charges.linked:LinkedLatentCharges",
    "spectral": "phicalc.electrostatics.phi.head:SpectralHead",
    "dirichlet": "phicalc.electrostatics.phi.head:DirichletHead",
    "solve": "phicalc.electrostatics.phi.head:ScreenedHead",
    "solve+coulomb": "phicalc.electrostatics.phi.head:ScreenedCoulombHead",
    "solve+links": "phicalc.electrostatics.phi.head:LinkedScreenedHead",
    "solve+coulomb+links": "phicalc.electrostatics.phi.head:LinkedScreenedCoulombHead",
    "random": "phicalc.electrostatics.phi.head:RandomGraphHead",
}

#: Largest structure (atoms) whose charges are found without iterations, where a head does not
#: say otherwise.
DENSE_ATOMS = 400


class Polarization(NamedTuple):
    """Dipole moment of structures with any boundary conditions: ``P = Σ z_i r_i + Σ d_i``."""

    charges: Float64[Tensor, " n_atoms"]
    """z_i in e, carried by the atoms."""
    dipoles: Float64[Tensor, "n_atoms 3"]
    """d_i in e Å, of the charge that flows between atom i and its neighbors."""


class Formal(NamedTuple):
    """Formal charges of the atoms of a batch."""

    charges: Float64[Tensor, " n_atoms"]
    """z_i in e; their sums are those that are asked for."""
    probabilities: Float64[Tensor, "n_atoms n_states"]
    """Of the states −K … K e of each atom, of which ``2 K + 1`` there are."""


class Electrostatics(NamedTuple):
    """Result of an electrostatic head."""

    charges: Float64[Tensor, " n_atoms"]
    """Partial charges in e; `Head.conserves_total_charge` says what they sum to."""
    potential: Float64[Tensor, " n_atoms"]
    """Electrostatic potential at the atoms in eV/e, a constant."""
    atomic_energies: Float64[Tensor, " n_atoms"]
    """Contribution of each atom to the electrostatic energy in eV; only sums have derivatives."""
    residual: Float64[Tensor, "n_atoms c"] | None = None
    """Remainder of Poisson's equation in e, for heads that solve it on the graph."""
    polarization: Polarization | None = None
    """For heads whose charge flows along links; else the charges where they are."""
    formal: Formal | None = None
    """For heads whose charges start from formal ones."""
    missing: Float64[Tensor, " n_atoms"] | None = None
    """What the charges of the structure or fragment of each atom lacked of its total charge in e,
    before it was shared out; in training mode, for heads with `Head.reads_charges`."""


class Surroundings(NamedTuple):
    """Facts about the rest of a potential that its head is built from."""

    elements: tuple[str, ...]
    """Chemical symbols of the potential."""
    n_features: int
    """Width of the node features."""
    cutoff: float
    """Cutoff of the edges in Å."""
    energy_scale: float
    """Energy in eV that one unit of network output stands for."""
    average_neighbors: float
    """Mean number of edges per atom in the training data."""
    has_feedback: bool
    """Whether the charges also enter the short-range energy."""


class Head(nn.Module, ABC):
    """An electrostatic head: it turns node features into charges and their energy.

    The class attributes below are its traits. A subclass overrides those in which it differs, as
    class attributes or as properties where they depend on its options.
    """

    Settings: ClassVar[type[Any]] = NoSettings
    """Frozen dataclass of the options beside ``name`` in the section ``head``."""

    has_charges: ClassVar[bool] = True
    """Whether atoms have partial charges, hence a dipole moment."""
    has_coulomb: ClassVar[bool] = False
    """Whether the energy contains a sum of Coulomb interactions, planned before each evaluation."""
    has_formal_charges: ClassVar[bool] = False
    """Whether charges start from formal ones, which are to be integers for each molecule."""
    solves_poisson: ClassVar[bool] = False
    """Whether Poisson's equation is solved on the graph of atoms."""
    conserves_total_charge: ClassVar[bool] = True
    """Whether the charges sum to the total charge; otherwise they sum to zero."""
    charges_flow: ClassVar[bool] = False
    """Whether charge flows between atoms, so that a reservoir can supply it and a field polarizes
    a structure."""
    conducts: ClassVar[bool] = False
    """Whether charge flows over any distance at no cost, as in a metal."""
    polarizes_cells: ClassVar[bool] = False
    """Whether there is a `Polarization`, so that fields may point along periodic axes."""
    shifts_charges: ClassVar[bool] = False
    """Whether a missing total charge is spread over all atoms, unconnected ones included."""
    reads_charges: ClassVar[bool] = False
    """Whether the charges are read from the features, which may know the charge of a molecule."""
    charges_differentiable: ClassVar[bool] = True
    """Whether charges have derivatives with respect to positions."""
    works_unseen: ClassVar[bool] = False
    """Whether charges can be found without looking at any number on the way, as what is recorded
    for a GPU must (`iterations`)."""
    coulomb_products: ClassVar[int] = 0
    """Products with the Coulomb matrix that an evaluation of a large structure needs beside that of
    the energy."""
    dense_atoms: ClassVar[int] = DENSE_ATOMS
    """Number of atoms of the largest structure whose charges are found without iterations."""

    widths: GaussianWidths | None
    """Gaussian widths of the charges, if there is a Coulomb sum."""
    starting: Any | None
    """`phicalc.electrostatics.charges.starting.StartingCharges`, if there are formal charges."""
    force_accuracy: float
    """Root mean square error in eV/Å that the Coulomb sums may leave in the forces."""

    iterations: int | None
    """Number of iterations that solvers do without looking at any number; None: as many as it
    takes, or none at all. Charges that have not converged then are NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.iterations = None
        self.widths = None
        self.starting = None
        self.force_accuracy = 1e-4

    @property
    def is_stationary(self) -> bool:
        """Whether the total energy is stationary in the charges at fixed positions.

        Forces then need no response of the charges, and Born charges are derivatives of forces.
        """
        return False

    def charges_are_unique(self, graph: AtomicGraph) -> bool:
        """Whether charges and potential of these structures do not depend on the atoms' order."""
        return True

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Any, surroundings: Surroundings) -> "Head":
        """Return a head with random weights for a potential."""

    def readouts(self) -> tuple[nn.Linear, ...]:
        """Return the maps from features to parameters of the charges that are to start small.

        Features of an untrained network are arbitrary, and charges that follow them make forces
        much larger than those that tabulated parameters alone make.
        """
        return () if self.starting is None else (self.starting.increments.readout,)

    def prepare(self, graph: AtomicGraph, element: Int64[Tensor, " n_atoms"]) -> AtomicGraph:
        """Return the graph with what the head chooses by the geometry, with no derivatives.

        By default the links of starting charges.

        Parameters
        ----------
        graph
            The batch.
        element
            Index of each atom's element among those of the potential.
        """
        return graph if self.starting is None else self.starting.prepare(graph, element)

    @abstractmethod
    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        derivatives: int = 2,
    ) -> Electrostatics:
        """Return charges and energies of a batch.

        Parameters
        ----------
        node_features
            Invariant features of the atoms from the backbone.
        element
            Index of each atom's element among those of the potential.
        graph
            The batch.
        derivatives
            Number of exact derivatives of the *energy*: 1 for forces, 2 for training on forces.
            The head decides how many of them its charges need.
        """


class NoElectrostatics(Head):
    """No electrostatic energy and no charges."""

    has_charges = False
    conserves_total_charge = False
    works_unseen = True

    @property
    def is_stationary(self) -> bool:
        """Whether the energy is stationary in the charges: there are none."""
        return True

    @classmethod
    def from_settings(cls, settings: Any, surroundings: Surroundings) -> "Head":
        """Return the head; it has no weights."""
        return cls()

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        derivatives: int = 2,
    ) -> Electrostatics:
        """Return zeros: no charges in e, no energies in eV."""
        # `len` would fix the number of atoms of compiled functions.
        nothing = node_features.new_zeros(element.shape[0]).double()
        return Electrostatics(nothing, nothing, nothing)


class HeadKind(Kind):
    """Section ``head`` of a potential's settings: name and options."""

    what = "head"
    known = HEADS
    base = Head
