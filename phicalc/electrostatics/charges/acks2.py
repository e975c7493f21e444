"""ACKS2: charges that flow along the links of a graph, as electrons do in matter."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.bounded import between, bounded, raw_of
from phicalc.electrostatics.charges.elements import covalent_radius, electronegativity
from phicalc.electrostatics.charges.links import Links
from phicalc.electrostatics.charges.softness import Softness
from phicalc.electrostatics.charges.starting import StartingCharges, StartingSettings
from phicalc.electrostatics.charges.transfer import Network, choose_solver, transfer_charges
from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.head import Electrostatics, Head, Surroundings
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.widths import GaussianWidths
from phicalc.graph import AtomicGraph
from phicalc.schema import Positive, checked, settings

#: Iterations that larger structures usually take.
ITERATIONS = 20
#: Hardness in eV/e² from which training starts, and the largest.
_USUAL_HARDNESS, _LARGEST_HARDNESS = 4.0, 20.0


class TransferredCharges(Head):
    """Electrostatic head: node features → formal charges, links, electronegativities → charges.

    ``q = z + Σ p⁰ + Σ p`` with formal charges z, bond increments p⁰ that are functions of the
    surroundings, and flows p that minimize the energy (`phicalc.electrostatics.charges.transfer`).
    Increments make the charges of a molecule what they are, softness how they answer. Charge
    stays where no link leads away from, so that distant molecules keep theirs, and moves as far as
    the links are soft: from not at all to freely, as in charge equilibration, their limit. A field
    drives the flows along any axis, periodic ones included. All parameters are bounded:
    ``χ_i = χ_Z + Δ tanh(w·h_i/Δ)``, J between a floor and 20 eV/e², softness up to a ceiling.

    Parameters
    ----------
    surroundings
        Facts about the rest of the potential.
    settings
        See `Settings`.

    References
    ----------
    Nistor et al., J. Chem. Phys. 125, 094108 (2006) (split charges); Verstraelen et al.,
    J. Chem. Phys. 138, 074108 (2013) (ACKS2).
    """

    @settings
    @dataclass(frozen=True)
    class Settings(StartingSettings):
        """Settings of ACKS2.

        Raises
        ------
        ValueError
            For values of the wrong type or out of range.
        """

        softness_ceiling: Annotated[float, Positive] = 0.2
        """Largest softness of a link in e²/V."""
        hardness: Literal["element", "environment"] = "element"
        """Whether each element has a hardness, or each atomic environment."""
        hardness_floor: Annotated[float, Positive] = 1.0
        """Smallest hardness in eV/e²."""
        reservoir_softness: Annotated[float, Positive] = 1.0
        """Softness in e²/V of the link between an atom and a reservoir."""
        trained_smearing: bool = False
        """Train the Gaussian widths between half and twice the covalent radii; otherwise they stay
        covalent radii."""
        force_accuracy: Annotated[float, Positive] = 1e-4
        """Root mean square error in eV/Å that the Coulomb sums may leave in the forces."""

        def __post_init__(self) -> None:
            """Check words, types and ranges."""
            checked(self)
            if self.hardness_floor >= _USUAL_HARDNESS:
                raise ValueError(
                    f"hardness_floor must be below {_USUAL_HARDNESS:g} eV/e², where training "
                    f"starts, got {self.hardness_floor:g}"
                )

    widths: GaussianWidths
    starting: StartingCharges
    has_coulomb = True
    works_unseen = True
    charges_flow = True
    shifts_charges = True
    has_formal_charges = True
    coulomb_products = ITERATIONS

    def __init__(self, surroundings: Surroundings, settings: Settings):
        super().__init__()
        n_features, elements = surroundings.n_features, surroundings.elements
        self.settings, self.has_feedback = settings, surroundings.has_feedback
        self.force_accuracy = settings.force_accuracy
        self.widths = GaussianWidths(
            [covalent_radius(e) for e in elements], settings.trained_smearing
        )
        self.electronegativity = nn.Parameter(
            torch.tensor([electronegativity(e) for e in elements])
        )
        start = raw_of(_USUAL_HARDNESS, settings.hardness_floor, _LARGEST_HARDNESS)
        self.raw_hardness = nn.Parameter(torch.full((len(elements),), start))
        self.readout = nn.Linear(n_features, 1 + (settings.hardness == "environment"), bias=False)
        self.starting = StartingCharges(surroundings, settings)
        self.softness = Softness(surroundings, settings.softness_ceiling)

    @classmethod
    def from_settings(cls, settings: Settings, surroundings: Surroundings) -> Head:
        """Return a head that starts from tabulated electronegativities and covalent radii."""
        return cls(surroundings, settings)

    @property
    def is_stationary(self) -> bool:
        """Whether all of the energy that depends on the charges is what they minimize."""
        return not self.has_feedback

    @property
    def polarizes_cells(self) -> bool:  # type: ignore[override]  # a trait that depends on options
        """Whether fields may point along periodic axes."""
        return self.settings.polarize_cells

    def readouts(self) -> tuple[nn.Linear, ...]:
        """Return the maps to electronegativity, hardness and bond increments."""
        return self.readout, *super().readouts()

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        derivatives: int = 2,
    ) -> Electrostatics:
        """Let the charges of a batch flow; see `Head.forward`.

        The energy is evaluated as ``χᵀq + ½ qᵀHq − uᵀ(q − z) − ½ uᵀLu``, which is stationary in the
        charges q *and* in the potentials u: both may lag one derivative behind.
        """
        chi, hardness = self._of_atoms(node_features, element)
        start = self.starting(node_features, element, graph)
        z, formal = start.charges, start.formal
        network = self._network(node_features, graph, start.links)
        coulomb = CoulombSum(graph, self.widths(element))
        pull = chi if graph.fragments is None else chi - graph.fragments.potential
        solver = choose_solver(coulomb, hardness, network, graph.charge_guess, self.iterations)
        exact = derivatives - 1 if self.is_stationary else derivatives
        q = transfer_charges(coulomb, pull, hardness, z, network, derivatives=exact, solver=solver)
        potential, energies = coulomb.atomic_energies(q)
        u = pull + hardness * q + (coulomb.potential(q) if derivatives > 1 else potential)
        u = u if derivatives > 1 else u.detach()
        energies = energies + chi * q + 0.5 * hardness * q**2
        energies = energies - u * (q - z) - network.energies(u)
        flown = network.polarization(formal.charges, u, start.links.vectors)
        if graph.external_field is not None:  # `Potential` adds the energy of the polarization
            field = graph.external_field[graph.batch]
            energies = energies + (flown.dipoles * field).sum(1)
        polarization = flown._replace(dipoles=flown.dipoles + start.increments.dipoles())
        return Electrostatics(q, potential, energies, polarization=polarization, formal=formal)

    def _of_atoms(
        self, node_features: Float[Tensor, "n_atoms n_features"], element: Int64[Tensor, " n_atoms"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, " n_atoms"]]:
        """χ_i in eV/e and J_i in eV/e²."""
        read = self.readout(node_features).double()
        raw = self.raw_hardness[element].double()
        if self.settings.hardness == "environment":
            raw = raw + read[:, 1]
        chi = bounded(read[:, 0], self.settings.electronegativity_range)
        hardness = between(raw, self.settings.hardness_floor, _LARGEST_HARDNESS)
        return chi + self.electronegativity[element].double(), hardness

    def _network(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        graph: AtomicGraph,
        links: Links,
    ) -> Network:
        """Softness of the links, what drives charge along them, and reservoirs."""
        drive, reservoirs = None, None
        if graph.external_field is not None:
            field = graph.external_field[graph.batch[links.atoms[0]]]
            drive = (field * links.vectors).sum(1)
        if graph.fragments is not None:
            constraints = ChargeConstraints(graph)
            free = constraints.at_atoms(1 - constraints.fixed)
            reservoirs = self.settings.reservoir_softness * free
        return Network(self.softness(node_features, graph, links), drive, reservoirs)
