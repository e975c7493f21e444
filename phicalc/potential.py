"""The potential: backbone, readouts and electrostatic head, as a sum of named energy terms."""

from typing import NamedTuple

import torch
from ase.data import atomic_numbers
from jaxtyping import Float, Float64
from torch import Tensor, nn

from phicalc.architecture import COULOMB_HEADS, NEUTRAL_HEADS, Head
from phicalc.architecture import PotentialConfig as PotentialConfig
from phicalc.backbone import NequIP
from phicalc.electrostatics import (
    ChargeEquilibration,
    CoulombPlanner,
    CoulombSettings,
    GaussianWidths,
    LatentCharges,
    PhiHead,
    PhiModule,
)
from phicalc.electrostatics.charges.elements import covalent_radius, electronegativity
from phicalc.electrostatics.charges.qeq import DENSE_ATOMS, ITERATIONS
from phicalc.electrostatics.constraints import mean_charge
from phicalc.electrostatics.phi.poisson import DENSE_POISSON
from phicalc.feedback import ChargeEmbedding, ChargeNetwork
from phicalc.graph import AtomicGraph, field_coordinate, sum_per_structure
from phicalc.nn import MLP, Linear


class PotentialOutput(NamedTuple):
    """Energies of a batch, before any derivative is taken."""

    energy: Float64[Tensor, " n_structures"]
    """Total energy of each structure in eV."""
    atomic_energies: Float64[Tensor, " n_atoms"]
    """Contribution of each atom to it in eV."""
    terms: dict[str, Float64[Tensor, " n_structures"]]
    """The named terms whose sum is the energy, in eV."""
    charges: Float64[Tensor, " n_atoms"] | None
    """Partial charges in e, if the potential has an electrostatic head."""
    atomic_dipoles: Float64[Tensor, "n_atoms 3"] | None
    """Dipoles in e·Å that add to those of the charges, if the potential has them."""
    potential: Float64[Tensor, " n_atoms"] | None
    """Electrostatic potential at each atom in V, a constant."""
    residual: Float64[Tensor, "n_atoms c"] | None
    """What is left of Poisson's equation in e, if the head solves it on the graph."""


class Potential(nn.Module):
    """``E = Σ E_Z + Σ E_short(h, q) + E_elec(q)`` with q from charge equilibration.

    The network runs in the dtype of its parameters (``potential.float()`` or ``.double()``);
    electrostatics and all sums over atoms are in float64.
    """

    element_of_number: Tensor

    def __init__(self, config: PotentialConfig):
        super().__init__()
        self.config = config
        self.cutoff = config.cutoff
        self.elements = tuple(atomic_numbers[symbol] for symbol in config.elements)
        self.embedding = nn.Parameter(torch.randn(len(self.elements), config.channels))
        self.backbone = self._network(config.layers, vectors=config.atomic_dipoles)
        n_features = self.n_features = self.backbone.n_features
        self.head = self._electrostatic_head(n_features)
        self.feedback: nn.Module | None = None
        if config.charge_feedback == "embedding":
            self.feedback = ChargeEmbedding(n_features)
        if config.charge_feedback == "network":
            network = self._network(config.feedback_layers)
            self.feedback = ChargeNetwork(
                network, config.channels, config.charge_basis, config.charge_range
            )
            n_features = self.feedback.network.n_features
        self.linear_readout = Linear(n_features, 1)
        self.n_seen = config.channels if config.readout == "last" else n_features
        self.readout = MLP(self.n_seen, config.channels, 1)
        self.charge_embedding: Linear | None = None
        if config.total_charge_embedding:
            self.charge_embedding = Linear(1, config.channels)
        table = torch.full((119,), -1)
        table[list(self.elements)] = torch.arange(len(self.elements))
        self.register_buffer("element_of_number", table, persistent=False)

    def _electrostatic_head(
        self, n_features: int
    ) -> ChargeEquilibration | LatentCharges | PhiHead | None:
        """Make the electrostatic head."""
        config = self.config
        if config.head == "none":
            return None
        if config.head == "latent":
            return LatentCharges(n_features, len(config.elements), self._common_width())
        if config.head != "qeq":
            return self._phi_head(config.head, n_features)
        radii = [covalent_radius(symbol) for symbol in config.elements]
        return ChargeEquilibration(
            n_features,
            [electronegativity(symbol) for symbol in config.elements],
            GaussianWidths(radii, config.smearing == "trained"),
            config.hardness_floor,
            config.hardness,
            config.electrostatic_energy,
        )

    def _common_width(self) -> GaussianWidths:
        """Make the one width of all charges that are not equilibrated."""
        return GaussianWidths([self.config.latent_smearing], self.config.smearing == "trained")

    def _phi_head(self, head: Head, n_features: int) -> PhiHead:
        """Make a Φ-Module."""
        config, with_coulomb = self.config, head == "solve+coulomb"
        phi = PhiModule(
            n_features,
            config.cutoff,
            mode="solve" if with_coulomb else head,  # type: ignore[arg-type]  # the others are gone
            channels=config.phi_channels,
            eigenpairs=config.eigenpairs,
            screening_floor=config.screening_floor,
            scale=config.energy_scale,
            links=config.average_neighbors,
        )
        return PhiHead(phi, self._common_width() if with_coulomb else None)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.embedding.dtype

    @property
    def _stationary(self) -> bool:
        """Whether the energy does not change, to first order, with what is solved for."""
        if isinstance(self.head, PhiHead):
            return True
        return self.config.electrostatic_energy == "qeq" and self.feedback is None

    def _network(self, layers: int, vectors: bool = False) -> NequIP:
        """Make a backbone with this many layers."""
        config = self.config
        return NequIP(
            n_elements=len(self.elements),
            layers=layers,
            channels=config.channels,
            edge_channels=config.edge_channels or config.channels,
            l_max=config.l_max,
            hidden_l_max=config.hidden_l_max,
            correlation=config.correlation,
            radial_basis=config.radial_basis,
            cutoff=config.cutoff,
            average_neighbors=config.average_neighbors,
            gated=config.gate,
            vectors=vectors,
        )

    def coulomb_planner(self, settings: CoulombSettings | None = None) -> CoulombPlanner:
        """Make a planner of electrostatic sums for this potential (see `prepare`)."""
        settings = settings or CoulombSettings(self.config.force_accuracy)
        applications = ITERATIONS if self.config.head == "qeq" else 0
        return CoulombPlanner(
            settings,
            mesh_above=DENSE_ATOMS,
            applications=applications,
            narrower=self.training and self.config.smearing == "trained",
        )

    def prepare(self, graph: AtomicGraph, planner: CoulombPlanner | None = None) -> AtomicGraph:
        """Add to `graph` what the electrostatic sums need; nothing without an electrostatic head.

        Parameters
        ----------
        graph
            Batch of structures.
        planner
            One that is kept from step to step of a simulation (`coulomb_planner`); by default a new
            one, which chooses the parameters of the sums for these structures alone.
        """
        if not self.has_coulomb:
            return graph
        return (planner or self.coulomb_planner()).plan(graph, self.smearing(graph))

    @property
    def largest_dense(self) -> int:
        """Atoms of the largest structure whose electrostatics is solved without iterations."""
        solving = isinstance(self.head, PhiHead) and self.config.head not in NEUTRAL_HEADS
        return DENSE_POISSON if solving else DENSE_ATOMS

    @property
    def has_coulomb(self) -> bool:
        """Whether there are sums of Coulomb interactions."""
        return self.config.head in COULOMB_HEADS

    def smearing(self, graph: AtomicGraph) -> Float64[Tensor, " n_atoms"]:
        """Gaussian width σ of each charge in Å.

        While the potential is in training mode, which its plans shall survive, the largest that the
        width can become.
        """
        assert self.head is not None
        widths = self.head.widths
        assert isinstance(widths, GaussianWidths)
        element = self.element_of_number[graph.atomic_numbers]
        return widths.widest(element) if self.training else widths(element)

    def forward(self, graph: AtomicGraph, derivatives: int = 2) -> PotentialOutput:
        """Energies and charges of a batch (see `phicalc.derivatives` for forces and stress).

        Of the energy so many `derivatives` are exact: 1 for forces, 2 for training on forces.
        """
        element = self.element_of_number[graph.atomic_numbers]
        inputs = self.embedding[element]
        if self.charge_embedding is not None:
            inputs = inputs + self.charge_embedding(mean_charge(graph)[:, None].to(inputs))
        table = self.backbone(inputs, element, graph)
        features = table[:, : self.n_features]
        dipoles = table[:, self.n_features :].double() if self.config.atomic_dipoles else None
        terms = {"reference": self.reference_energies()[element]}
        charges = potential = residual = None
        if self.head is not None:
            # Where the energy is stationary in a solution, that may lag one order behind.
            order = derivatives - 1 if self._stationary else derivatives
            electrostatics = self.head(features, element, graph, order)
            charges, potential = electrostatics.charges, electrostatics.potential
            residual = electrostatics.residual
            terms["electrostatic"] = electrostatics.atomic_energies
            if graph.external_field is not None:
                terms["external_field"] = -charges * field_coordinate(graph)
                if dipoles is not None:
                    field = graph.external_field[graph.batch]
                    terms["external_field"] -= (dipoles * field).sum(1)
            if graph.fragments is not None:
                terms["reservoirs"] = -charges * graph.fragments.potential
        if self.feedback is not None:
            features = self.feedback(features, self.embedding[element], charges, element, graph)
        terms["short_range"] = self.config.energy_scale * self._read_out(features)
        atomic_energies = sum(terms.values(), start=torch.zeros_like(terms["reference"]))
        return PotentialOutput(
            energy=sum_per_structure(atomic_energies, graph),
            atomic_energies=atomic_energies,
            terms={name: sum_per_structure(term, graph) for name, term in terms.items()},
            charges=charges,
            atomic_dipoles=dipoles,
            potential=potential,
            residual=residual,
        )

    def reference_energies(self) -> Float64[Tensor, " n_elements"]:
        """Energy of each element in eV; always float64, whatever the network is."""
        device = self.embedding.device
        return torch.tensor(self.config.reference_energies, dtype=torch.float64, device=device)

    def _read_out(self, features: Float[Tensor, "n_atoms c"]) -> Float64[Tensor, " n_atoms"]:
        """Short-range energy of each atom in units of the energy scale."""
        seen = features[:, -self.n_seen :]
        return (self.linear_readout(features) + self.readout(seen)).squeeze(1).double()


def build_potential(config: PotentialConfig, seed: int = 0) -> Potential:
    """Make a potential with random weights; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Potential(config)
