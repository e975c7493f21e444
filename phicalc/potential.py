"""The potential: backbone, readouts and electrostatic head, as a sum of named energy terms."""

from typing import Any, NamedTuple

import torch
from ase.data import atomic_numbers
from jaxtyping import Float, Float64
from torch import Tensor, nn

from phicalc.architecture import PotentialConfig as PotentialConfig
from phicalc.backbone import check_backbone, last_features
from phicalc.electrostatics.constraints import mean_charge
from phicalc.electrostatics.head import (
    DENSE_ATOMS,
    Electrostatics,
    Formal,
    Polarization,
    Surroundings,
)
from phicalc.electrostatics.sums import CoulombPlanner, CoulombSettings
from phicalc.feedback import FirstNetwork
from phicalc.graph import AtomicGraph, field_coordinate, sum_per_structure
from phicalc.nn import MLP, Constants, Linear
from phicalc.terms import LearnedDispersion, ScreenedRepulsion
from phicalc.uncertainty import LastLayerUncertainty


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
    polarization: Polarization | None = None
    """Dipole moment along any axis, if the head has one."""
    formal: Formal | None = None
    """Formal charges, if the head has them."""
    missing: Float64[Tensor, " n_atoms"] | None = None
    """What the charges lacked of the total charge in e (`Head.reads_charges`); None in evaluation
    mode."""
    last_features: Float[Tensor, "n_atoms n_last"] | None = None
    """Features that the short-range energy is linear in, constants; None in training mode."""


class Potential(nn.Module):
    """``E = Σ E_Z + Σ E_short(h, q) + E_elec(q) + Σ E_rep + Σ E_disp``, charges q from the head.

    The network runs in the dtype of its parameters (``potential.float()`` or ``.double()``);
    electrostatics and all sums over atoms are in float64.
    """

    element_of_number: Tensor

    def __init__(self, config: PotentialConfig):
        super().__init__()
        self._config = config
        self.references = Constants(config.reference_energies)
        self.cutoff = config.cutoff
        self.elements = tuple(atomic_numbers[symbol] for symbol in config.elements)
        width = config.backbone.implementation.input_width(config.backbone.settings)
        self.embedding = nn.Parameter(torch.randn(len(self.elements), width))
        self.backbone = self._network(config.backbone.settings, vectors=config.atomic_dipoles)
        self.n_features: int = self.backbone.n_features
        self.head = config.head.implementation.from_settings(
            config.head.settings, self._surroundings()
        )
        first = FirstNetwork(width, self.n_features, config.backbone.settings, self._network)
        self.feedback = config.feedback.implementation.from_settings(
            config.feedback.settings, first
        )
        self.linear_readout = Linear(self.feedback.n_features, 1)
        last = config.readout == "last"
        self.n_seen = last_features(self.backbone) if last else self.feedback.n_features
        self.readout = MLP(self.n_seen, width, 1)
        self.n_last: int = self.feedback.n_features + width
        self.uncertainty: LastLayerUncertainty | None = None
        self.repulsion: ScreenedRepulsion | None = None
        if config.repulsion == "zbl":
            self.repulsion = ScreenedRepulsion(config.elements, config.cutoff)
        self.dispersion: LearnedDispersion | None = None
        if config.dispersion == "learned":
            self.dispersion = LearnedDispersion(config.elements, self.n_features, config.cutoff)
        self.charge_embedding: Linear | None = None
        if config.total_charge_embedding:
            self.charge_embedding = Linear(1, width)
        table = torch.full((119,), -1)
        table[list(self.elements)] = torch.arange(len(self.elements))
        self.register_buffer("element_of_number", table, persistent=False)

    def _network(self, settings: Any, *, vectors: bool = False) -> Any:
        """Return a backbone with random weights."""
        network = self.config.backbone.implementation.from_settings(
            settings,
            elements=self.config.elements,
            cutoff=self.cutoff,
            average_neighbors=self.config.average_neighbors,
            vectors=vectors,
        )
        check_backbone(network)
        return network

    def _surroundings(self) -> Surroundings:
        """Facts that the head is built from."""
        return Surroundings(
            elements=self.config.elements,
            n_features=self.n_features,
            cutoff=self.cutoff,
            energy_scale=self.config.energy_scale,
            average_neighbors=self.config.average_neighbors,
            has_feedback=self.config.feedback.implementation.uses_charges,
        )

    @property
    def config(self) -> PotentialConfig:
        """Settings; training puts in what it fits, such as reference energies."""
        return self._config

    @config.setter
    def config(self, config: PotentialConfig) -> None:
        self._config = config
        self.references = Constants(config.reference_energies).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.embedding.dtype

    def coulomb_planner(
        self, settings: CoulombSettings | None = None, mesh_above: int = DENSE_ATOMS
    ) -> CoulombPlanner:
        """Make a planner of electrostatic sums for this potential (see `prepare`).

        Structures of at most `mesh_above` atoms are summed without a mesh.
        """
        widths = self.head.widths
        return CoulombPlanner(
            settings or CoulombSettings(self.head.force_accuracy),
            mesh_above=mesh_above,
            applications=self.head.coulomb_products,
            narrower=self.training and widths is not None and widths.trained,
        )

    def prepare(self, graph: AtomicGraph, planner: CoulombPlanner | None = None) -> AtomicGraph:
        """Add to `graph` what the head and electrostatic and dispersion sums need, if any do.

        Parameters
        ----------
        graph
            Batch of structures.
        planner
            One that is kept from step to step of a simulation (`coulomb_planner`); by default a new
            one, which chooses the parameters of the sums for these structures alone.

        Raises
        ------
        ValueError
            For structures whose sums take too many waves.
        """
        element = self.element_of_number[graph.atomic_numbers]
        if self.dispersion is not None:
            wanted = self.head if planner is None else planner.settings
            above = DENSE_ATOMS if planner is None else planner.mesh_above
            graph = self.dispersion.prepare(graph, element, wanted.force_accuracy, above)
        graph = self.head.prepare(graph, element)
        if not self.head.has_coulomb:
            return graph
        return (planner or self.coulomb_planner()).plan(graph, self.smearing(graph))

    def smearing(self, graph: AtomicGraph) -> Float64[Tensor, " n_atoms"]:
        """Gaussian width σ of each charge in Å.

        While the potential is in training mode, which its plans shall survive, the largest that the
        width can become.
        """
        widths = self.head.widths
        assert widths is not None
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
        found = self.head(features, element, graph, derivatives)
        terms = {"reference": self.references(element)}
        if self.head.has_charges:
            terms["electrostatic"] = found.atomic_energies
            terms |= external_terms(found, dipoles, graph)
        if self.repulsion is not None:
            terms["repulsion"] = self.repulsion(element, graph)
        if self.dispersion is not None:
            terms["dispersion"] = self.dispersion(features, element, graph)
        features = self.feedback(features, self.embedding[element], found.charges, element, graph)
        short_range, last_features = self._read_out(features)
        terms["short_range"] = self.config.energy_scale * short_range
        atomic_energies = sum(terms.values(), start=torch.zeros_like(terms["reference"]))
        return PotentialOutput(
            energy=sum_per_structure(atomic_energies, graph),
            atomic_energies=atomic_energies,
            terms={name: sum_per_structure(term, graph) for name, term in terms.items()},
            charges=found.charges if self.head.has_charges else None,
            atomic_dipoles=dipoles,
            potential=found.potential if self.head.has_charges else None,
            residual=found.residual,
            polarization=found.polarization,
            formal=found.formal,
            missing=found.missing,
            last_features=last_features,
        )

    def _read_out(
        self, features: Float[Tensor, "n_atoms c"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float[Tensor, "n_atoms n_last"] | None]:
        """Short-range energy of each atom in units of the energy scale, and the last features."""
        *layers, last = self.readout
        hidden = features[:, -self.n_seen :]
        for layer in layers:
            hidden = layer(hidden)
        energy = (self.linear_readout(features) + last(hidden)).squeeze(1).double()
        if self.training:
            return energy, None
        return energy, torch.cat([features, hidden], dim=1).detach()


def external_terms(
    found: Electrostatics, dipoles: Float64[Tensor, "n_atoms 3"] | None, graph: AtomicGraph
) -> dict[str, Float64[Tensor, " n_atoms"]]:
    """Return the energies (eV) of charges (e) and atomic dipoles (e·Å) in external conditions."""
    terms = {}
    if graph.external_field is not None:
        field = graph.external_field[graph.batch]
        charges = found.charges if found.polarization is None else found.polarization.charges
        terms["external_field"] = -charges * field_coordinate(graph)
        for each in (dipoles, None if found.polarization is None else found.polarization.dipoles):
            if each is not None:
                terms["external_field"] -= (each * field).sum(1)
    if graph.fragments is not None:
        terms["reservoirs"] = -found.charges * graph.fragments.potential
    return terms


def build_potential(config: PotentialConfig, seed: int = 0) -> Potential:
    """Make a potential with random weights; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Potential(config)
