"""Charge equilibration: charges that minimise the electrostatic energy under constraints."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from phicalc.electrostatics.charges.bounded import bounded
from phicalc.electrostatics.charges.elements import covalent_radius, electronegativity
from phicalc.electrostatics.charges.solvers import ConjugateGradientSolver, DenseSolver, Solver
from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.head import DENSE_ATOMS, Electrostatics, Head, Surroundings
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.widths import GaussianWidths
from phicalc.graph import AtomicGraph, field_coordinate
from phicalc.linear import refine
from phicalc.schema import Positive, checked, settings

#: Iterations that larger ones usually take, from the charges of the last step.
ITERATIONS = 6


def equilibrate(
    coulomb: CoulombSum,
    electronegativity: Float64[Tensor, " n_atoms"],
    hardness: Float64[Tensor, " n_atoms"],
    net_charge: Float64[Tensor, "n_structures n_fragments"] | None = None,
    *,
    derivatives: int = 2,
    solver: Solver | None = None,
) -> Float64[Tensor, " n_atoms"]:
    """Minimise ``Σ(χ_i q_i + ½ J_i q_i²) + ½ qᵀAq`` subject to ``C q = Q``.

    C sums the charges of each structure or of each of its fragments (`ChargeConstraints`). The
    stationary point solves ``[[A + J, Cᵀ], [C, 0]] (q, λ) = (−χ, Q)``; derivatives by
    `phicalc.linear.refine`.

    Parameters
    ----------
    coulomb
        The interaction matrix A of the batch.
    electronegativity
        χ_i in eV/e.
    hardness
        J_i in eV/e², positive.
    net_charge
        Q of each fragment, or structure without fragments, in e; by default as the graph says.
    derivatives
        Number of exact derivatives of the charges: 0 for constants, 1 for forces, 2 for training on
        forces (or for a Hessian).
    solver
        By default, `choose_solver` chooses it.

    Returns
    -------
    charges
        q_i in e.

    References
    ----------
    Rappé & Goddard, J. Phys. Chem. 95, 3358 (1991); Gaussian charges as in Ko et al.,
    Nat. Commun. 12, 398 (2021).
    """
    solver = solver or choose_solver(coulomb, hardness)
    constraints = ChargeConstraints(coulomb.graph)
    net_charge = constraints.net_charge if net_charge is None else net_charge

    def residual(
        charges: Float64[Tensor, " n_atoms"],
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, "s f"]]:
        gradient = electronegativity + hardness * charges + coulomb.potential(charges)
        return gradient, net_charge - constraints.total(charges)

    def charges_for(
        gradient: Float64[Tensor, " n_atoms"], missing: Float64[Tensor, "s f"]
    ) -> Float64[Tensor, " n_atoms"]:
        return solver(gradient, missing)[0]

    return refine(charges_for, (electronegativity, net_charge), residual, derivatives)


def choose_solver(
    coulomb: CoulombSum,
    hardness: Float64[Tensor, " n_atoms"],
    guess: Float64[Tensor, " n_atoms"] | None = None,
    iterations: int | None = None,
) -> Solver:
    """Return a solver for this interaction, `hardness` in eV/e² and a `guess` of the charges in e.

    Structures of at most `DENSE_ATOMS` atoms get inverses, larger ones conjugate gradients; with a
    number of `iterations`, all of them do so many without looking at any number.
    """
    if iterations is not None:
        return ConjugateGradientSolver(
            coulomb, hardness, guess=guess, max_iterations=iterations, unseen=True
        )
    if coulomb.meshes or coulomb.n_slots > DENSE_ATOMS:
        return ConjugateGradientSolver(coulomb, hardness, guess=guess)
    return DenseSolver(coulomb, hardness)


class ChargeEquilibration(Head):
    """Electrostatic head: node features → electronegativities → charges → energy (QEq).

    χ_i = w·h_i + χ⁰_Z and J_i = floor + softplus(θ_Z), or floor + softplus(θ_Z + v·h_i) if hardness
    depends on the environment. The whole QEq energy (``energy="qeq"``) or only its Coulomb part
    (``"coulomb"``) goes into the total.

    Parameters
    ----------
    n_features
        Width of the node features.
    electronegativity
        χ⁰_Z in eV/e to start from; one number per element of the model.
    widths
        Gaussian widths σ_Z of the elements in Å.
    settings
        See `Settings`.
    has_feedback
        Whether the charges also enter the short-range energy.

    References
    ----------
    Ko et al., Nat. Commun. 12, 398 (2021) (4G-HDNNP: "coulomb"); Maruf et al.,
    arXiv:2503.17949 (NequIP-LR: "qeq").
    """

    @settings
    @dataclass(frozen=True)
    class Settings:
        """Settings of charge equilibration."""

        energy: Literal["qeq", "coulomb"] = "qeq"
        """Part of the QEq functional in the total energy: all of it, or ½ qᵀAq only."""
        hardness: Literal["element", "environment"] = "element"
        """Whether each element has a hardness, or each atomic environment."""
        hardness_floor: Annotated[float, Positive] = 1.0
        """Smallest hardness in eV/e²; it bounds the condition number of the linear system."""
        electronegativity_range: Annotated[float, Positive] | None = None
        """Largest difference in eV/e between atoms of one element, to either side; without it a
        structure that no training data resemble may have any."""
        trained_smearing: bool = False
        """Train the Gaussian widths between half and twice the covalent radii; otherwise they stay
        covalent radii."""
        force_accuracy: Annotated[float, Positive] = 1e-4
        """Root mean square error in eV/Å that the Coulomb sums may leave in the forces."""

        def __post_init__(self) -> None:
            """Check words, types and ranges."""
            checked(self)

    widths: GaussianWidths
    has_coulomb = True
    works_unseen = True
    charges_flow = True
    conducts = True
    coulomb_products = ITERATIONS

    def __init__(
        self,
        n_features: int,
        electronegativity: list[float],
        widths: GaussianWidths,
        settings: Settings,
        *,
        has_feedback: bool = False,
    ):
        super().__init__()
        self.readout = nn.Linear(n_features, 1, bias=False)
        self.electronegativity = nn.Parameter(torch.tensor(electronegativity))
        self.raw_hardness = nn.Parameter(torch.zeros(len(electronegativity)))
        self.widths = widths
        self.hardness_floor = settings.hardness_floor
        self.energy = settings.energy
        self.electronegativity_range = settings.electronegativity_range
        self.force_accuracy = settings.force_accuracy
        self.has_feedback = has_feedback
        self.hardness_readout: nn.Linear | None = None
        if settings.hardness == "environment":
            self.hardness_readout = nn.Linear(n_features, 1, bias=False)

    @classmethod
    def from_settings(cls, settings: Settings, surroundings: Surroundings) -> Head:
        """Return a head that starts from tabulated electronegativities and covalent radii."""
        radii = [covalent_radius(symbol) for symbol in surroundings.elements]
        return cls(
            surroundings.n_features,
            [electronegativity(symbol) for symbol in surroundings.elements],
            GaussianWidths(radii, settings.trained_smearing),
            settings,
            has_feedback=surroundings.has_feedback,
        )

    @property
    def is_stationary(self) -> bool:
        """Whether all of the energy that depends on the charges is what they minimize."""
        return self.energy == "qeq" and not self.has_feedback

    def readouts(self) -> tuple[nn.Linear, ...]:
        """Return the maps to electronegativity and hardness."""
        return tuple(each for each in (self.readout, self.hardness_readout) if each is not None)

    def forward(
        self,
        node_features: Float[Tensor, "n_atoms n_features"],
        element: Int64[Tensor, " n_atoms"],
        graph: AtomicGraph,
        derivatives: int = 2,
    ) -> Electrostatics:
        """Equilibrate the charges of a batch; see `Head.forward`."""
        chi = self._electronegativity(node_features, element)
        hardness = self.hardness(node_features, element)
        coulomb = CoulombSum(graph, self.widths(element))
        solver = choose_solver(coulomb, hardness, graph.charge_guess, self.iterations)
        pull = chi if graph.external_field is None else chi - field_coordinate(graph)
        pull = pull if graph.fragments is None else pull - graph.fragments.potential
        # A stationary energy forgives charges that lag one derivative behind.
        exact = derivatives - 1 if self.is_stationary else derivatives
        q = equilibrate(coulomb, pull, hardness, derivatives=exact, solver=solver)
        potential, energies = coulomb.atomic_energies(q)
        if self.energy == "qeq":
            energies = energies + chi * q + 0.5 * hardness * q**2
        return Electrostatics(q, potential, energies)

    def _electronegativity(
        self, node_features: Float[Tensor, "n_atoms n_features"], element: Int64[Tensor, " n_atoms"]
    ) -> Float64[Tensor, " n_atoms"]:
        """χ_i of each atom in eV/e."""
        read = self.readout(node_features).squeeze(1)
        if self.electronegativity_range is not None:
            read = bounded(read, self.electronegativity_range)
        return (read + self.electronegativity[element]).double()

    def hardness(
        self, node_features: Float[Tensor, "n_atoms n_features"], element: Int64[Tensor, " n_atoms"]
    ) -> Float64[Tensor, " n_atoms"]:
        """Return J_i of each atom in eV/e²."""
        raw = self.raw_hardness[element]
        if self.hardness_readout is not None:
            raw = raw + self.hardness_readout(node_features).squeeze(1)
        return self.hardness_floor + nn.functional.softplus(raw.double())
