"""Charges that flow along the links of a graph: the linear system of ACKS2, and its solvers.

Charge p_ij flows along the link of atoms i and j, whose softness is s_ij, and q = z + Σ p remain
where formal charges z were. Of all flows, those minimize

    ``χᵀq + ½ qᵀHq + ½ Σ p²/s``  with  ``H = A + J``

for which ``p_ij = −s_ij (u_i − u_j)`` with the chemical potentials ``u = χ + Hq``. With the
Laplacian L of the links this is Poisson's equation, ``L u = z − q``, or ``(1 + LH) q = z − Lχ``.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from phicalc import linear
from phicalc.electrostatics.head import DENSE_ATOMS, Polarization
from phicalc.electrostatics.laplacian import Laplacian
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.sums.frozen import frozen, without_looking

Solver = Callable[[Float64[Tensor, " n_atoms"]], Float64[Tensor, " n_atoms"]]
"""Takes right-hand sides in e, returns solutions q of ``(1 + LH) q = …`` in e; differentiable."""


class Network(NamedTuple):
    """What charge flows through: links between atoms, and from atoms to reservoirs."""

    links: Laplacian
    """Links between atoms, with softness in e²/V as weights."""
    drive: Float64[Tensor, " n_links"] | None = None
    """What an external field adds to the differences of potential along the links in V."""
    reservoirs: Float64[Tensor, " n_atoms"] | None = None
    """Softness of the link of each atom to a reservoir at zero potential in e²/V."""

    def drained(self, potential: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """Return the charge in e that flows off each atom at the potentials u in V: L u."""
        lost = -self.links.gathered(self.links.flows(potential, self.drive))
        return lost if self.reservoirs is None else lost + self.reservoirs * potential

    def energies(self, potential: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """Share of each atom in ``½ Σ p²/s`` in eV, for the flows at the potentials u in V."""
        falls = self.links.falls(potential, self.drive)  # p = −s · fall, and each link counts twice
        energies = self.links.gathered(0.25 * self.links.weights * falls**2)
        return (
            energies if self.reservoirs is None else energies + 0.5 * self.reservoirs * potential**2
        )

    def polarization(
        self,
        formal: Float64[Tensor, " n_atoms"],
        potential: Float64[Tensor, " n_atoms"],
        vectors: Float64[Tensor, "n_links 3"],
    ) -> Polarization:
        """Return formal charges (e) where the atoms are, and `dipoles` of what flowed."""
        if self.reservoirs is not None:
            formal = formal - self.reservoirs * potential
        return Polarization(formal, self.dipoles(potential, vectors))

    def dipoles(
        self, potential: Float64[Tensor, " n_atoms"], vectors: Float64[Tensor, "n_links 3"]
    ) -> Float64[Tensor, "n_atoms 3"]:
        """Return the dipoles in e·Å of what flowed at u in V, half of each at either atom.

        Vectors in Å lead from the first atom of each link to the second.
        """
        each = -0.5 * self.links.flows(potential, self.drive)[:, None] * vectors
        dipoles = torch.zeros_like(self.links.graph.positions)
        return dipoles.index_add(0, self.links.index[0], each)


def transfer_charges(
    coulomb: CoulombSum,
    electronegativity: Float64[Tensor, " n_atoms"],
    hardness: Float64[Tensor, " n_atoms"],
    formal: Float64[Tensor, " n_atoms"],
    network: Network,
    *,
    derivatives: int = 2,
    solver: Solver | None = None,
) -> Float64[Tensor, " n_atoms"]:
    """Return the charges in e for which the energy of all flows is least.

    Parameters
    ----------
    coulomb
        The interaction matrix A of the batch.
    electronegativity
        χ_i in eV/e.
    hardness
        J_i in eV/e², positive.
    formal
        Charges z_i in e that the atoms have before any flows.
    network
        The links.
    derivatives
        Number of exact derivatives of the charges, as in `phicalc.linear.refine`.
    solver
        By default, `choose_solver` chooses it.

    References
    ----------
    Nistor, Polihronov, Müser & Mosey, J. Chem. Phys. 125, 094108 (2006); Verstraelen, Ayers,
    Van Speybroeck & Waroquier, J. Chem. Phys. 138, 074108 (2013) (ACKS2).
    """
    solver = solver or choose_solver(coulomb, hardness, network)

    def residual(charges: Float64[Tensor, " n_atoms"]) -> tuple[Float64[Tensor, " n_atoms"]]:
        potential = electronegativity + hardness * charges + coulomb.potential(charges)
        return (formal - charges - network.drained(potential),)

    right = formal - network.drained(electronegativity)
    return linear.refine(solver, (right,), residual, derivatives)


def choose_solver(
    coulomb: CoulombSum,
    hardness: Float64[Tensor, " n_atoms"],
    network: Network,
    guess: Float64[Tensor, " n_atoms"] | None = None,
    iterations: int | None = None,
) -> Solver:
    """Return a solver for these links, `hardness` in eV/e² and a `guess` of the charges in e.

    With a number of `iterations` it does all of them without looking at any number.
    """
    if iterations is not None:
        return LinkSolver(
            coulomb, hardness, network, guess=guess, max_iterations=iterations, unseen=True
        )
    if coulomb.meshes or coulomb.n_slots > DENSE_ATOMS:
        return LinkSolver(coulomb, hardness, network, guess=guess)
    return DenseSolver(coulomb, hardness, network)


class DenseSolver:
    """Solves with the matrices 1 + LH themselves, which are formed as constants.

    Parameters
    ----------
    coulomb
        The sum, without a mesh.
    hardness
        J_i in eV/e².
    network
        The links.
    """

    def __init__(
        self, coulomb: CoulombSum, hardness: Float64[Tensor, " n_atoms"], network: Network
    ):
        self.coulomb = coulomb
        with torch.no_grad():
            interaction = coulomb.matrix() + torch.diag_embed(coulomb.to_slots(hardness))
            laplacian = network.links.matrix()
            if network.reservoirs is not None:
                laplacian = laplacian + torch.diag_embed(coulomb.to_slots(network.reservoirs))
            unity = torch.eye(laplacian.shape[1]).to(laplacian)
            self.solve = linear.DenseSolver(unity + laplacian @ interaction)

    def __call__(self, right: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """Return q in e of ``(1 + LH) q = right``."""
        return self.coulomb.from_slots(self.solve(self.coulomb.to_slots(right)))


class LinkSolver:
    """Conjugate gradients in the space of links; the matrices are only ever applied.

    With B, which gathers flows at the atoms, and ``p = √s p̂``, the symmetric, positive system
    ``(1 + √s BᵀHB √s) p̂ = −√s BᵀH right`` has eigenvalues from 1 to the largest of 1 + HL: few
    iterations where charge hardly flows. Each takes one product with the Coulomb matrix.

    Parameters
    ----------
    coulomb
        The sum, with or without a mesh.
    hardness
        J_i in eV/e².
    network
        The links.
    tolerance
        Largest residual of a link in √eV; the energy errs by its square.
    guess
        Charges in e from which the first solution starts.
    max_iterations
        Number of iterations after which to give up.
    unseen
        Whether to do all of them without looking at any number; see `linear.conjugate_gradients`.
    """

    def __init__(
        self,
        coulomb: CoulombSum,
        hardness: Float64[Tensor, " n_atoms"],
        network: Network,
        tolerance: float = 1e-7,
        guess: Float64[Tensor, " n_atoms"] | None = None,
        max_iterations: int = 1000,
        unseen: bool = False,
    ):
        self.n_structures = coulomb.graph.n_structures
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.guess, self.unseen = guess, unseen
        self.iterations: list[int] = []
        with torch.no_grad():
            self.hardness = hardness.detach()
            self.apply_coulomb = without_looking(coulomb) if unseen else frozen(coulomb)
            index, weights = network.links.index, network.links.weights.detach()
            self.first, self.second = index
            self.root = (0.5 * weights).sqrt()
            if not unseen:  # each link in one direction, and none to an atom's own images
                once = self.first < self.second
                self.first, self.second = index[:, once]
                self.root = weights[once].sqrt()
            batch = coulomb.graph.batch
            self.structure, self.reservoir_root = batch[self.first], None  # of each unknown
            if network.reservoirs is not None:
                self.reservoir_root = network.reservoirs.detach().sqrt()
                self.structure = torch.cat([self.structure, batch])

    def __call__(self, right: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """Return q in e of ``(1 + LH) q = right``.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the tolerance is not reached.
        """
        return linear.differentiable(self._solve, self._solve_transposed)(right)[0]

    def _solve(self, right: Float64[Tensor, " n_atoms"]) -> tuple[Float64[Tensor, " n_atoms"]]:
        """Without derivatives: q = right + B √s p̂."""
        start = None if self.guess is None else -self._fall(self._hardened(self.guess))
        self.guess = None  # it is good for one right-hand side
        return (right + self._gather(self._iterate(-self._fall(self._hardened(right)), start)),)

    def _solve_transposed(
        self, right: Float64[Tensor, " n_atoms"]
    ) -> tuple[Float64[Tensor, " n_atoms"]]:
        """Solve ``(1 + HL) v = right`` without derivatives: v = right − H B √s y."""
        return (right - self._hardened(self._gather(self._iterate(self._fall(right), None))),)

    def _iterate(
        self, right: Float64[Tensor, " n_links"], start: Float64[Tensor, " n_links"] | None
    ) -> Float64[Tensor, " n_links"]:
        """Solve ``(1 + √s BᵀHB √s) p̂ = right``."""

        def apply(flows: Float64[Tensor, " n_links"]) -> Float64[Tensor, " n_links"]:
            return flows + self._fall(self._hardened(self._gather(flows)))

        system = linear.System(apply, lambda r: (r, r), self._total, self._spread)
        try:
            flows, iterations = linear.conjugate_gradients(
                system, right, start, self._converged, self.max_iterations, unseen=self.unseen
            )
        except np.linalg.LinAlgError as error:
            raise np.linalg.LinAlgError(
                f"the flow of charge along links did not reach {self.tolerance:g} √eV in "
                f"{self.max_iterations} iterations; are atoms on top of each other?"
            ) from error
        self.iterations.append(iterations)
        return flows

    def _hardened(self, charges: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """H q."""
        return self.hardness * charges + self.apply_coulomb(charges)

    def _fall(self, values: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_links"]:
        """√s Bᵀ: differences along links between atoms, values at links to reservoirs."""
        falls = self.root * (values[self.first] - values[self.second])
        if self.reservoir_root is None:
            return falls
        return torch.cat([falls, self.reservoir_root * values])

    def _gather(self, flows: Float64[Tensor, " n_links"]) -> Float64[Tensor, " n_atoms"]:
        """B √s: what flows to each atom."""
        between = self.root * flows[: len(self.root)]
        gathered = torch.zeros_like(self.hardness).index_add(0, self.first, between)
        gathered = gathered.index_add(0, self.second, -between)
        if self.reservoir_root is None:
            return gathered
        return gathered + self.reservoir_root * flows[len(self.root) :]

    def _total(self, values: Float64[Tensor, " n_links"]) -> Float64[Tensor, " n_structures"]:
        """Sum over each structure."""
        return values.new_zeros(self.n_structures).index_add(0, self.structure, values)

    def _spread(self, values: Float64[Tensor, " n_structures"]) -> Float64[Tensor, " n_links"]:
        """Give each link the value of its structure."""
        return values[self.structure]

    def _converged(self, residual: Float64[Tensor, " n_links"]) -> Bool[Tensor, " n_structures"]:
        """Whether the largest residual of each structure is small enough."""
        worst = residual.new_zeros(self.n_structures)
        worst = worst.scatter_reduce(0, self.structure, residual.abs(), "amax")
        return worst <= self.tolerance
