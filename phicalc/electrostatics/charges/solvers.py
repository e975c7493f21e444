"""Solvers of the linear systems of charge equilibration.

With H = A + J, and C one row of ones for each sum of charges that is fixed (`ChargeConstraints`),
all of them solve

    ``H q + Cᵀλ = −g``,  ``C q = Q``

for the charges q and the multipliers λ: −λ is the electric potential that the atoms of a structure
or fragment have in common.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from phicalc import linear
from phicalc.electrostatics.charges.preconditioner import Preconditioner, Projection
from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.sums.frozen import frozen, without_looking

Solver = Callable[
    [Float64[Tensor, " n_atoms"], Float64[Tensor, "s f"]],
    tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, "s f"]],
]
"""Takes g (eV/e) and Q (e), returns q (e) and λ (eV/e); linear and differentiable in both."""


_NO_MINIMUM = (
    "the energy has no minimum while charge may flow in from a reservoir (periodic structures: a "
    "charged slab or wire has no potential to refer to). Fix the total charge too, so that only "
    "differences of potentials count"
)


class DenseSolver:
    """Solves with the bordered matrices themselves, which are formed as constants.

    Parameters
    ----------
    coulomb
        The sum, without a mesh.
    hardness
        J_i in eV/e².

    Raises
    ------
    numpy.linalg.LinAlgError
        If charge may flow in from a reservoir, and would without end.
    """

    def __init__(self, coulomb: CoulombSum, hardness: Float64[Tensor, " n_atoms"]):
        self.coulomb = coulomb
        self.constraints = ChargeConstraints(coulomb.graph)
        with torch.no_grad():
            self.solve = linear.DenseSolver(self._bordered_matrix(hardness))
            if self.constraints.flowing:
                self._check_stability(torch.ones_like(hardness))

    def __call__(
        self, gradient: Float64[Tensor, " n_atoms"], net_charge: Float64[Tensor, "s f"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, "s f"]]:
        """Return charges in e and multipliers in eV/e for g in eV/e and Q in e."""
        solution = self.solve(torch.cat([self.coulomb.to_slots(-gradient), net_charge], dim=1))
        n_slots = solution.shape[1] - net_charge.shape[1]
        return self.coulomb.from_slots(solution[:, :n_slots]), solution[:, n_slots:]

    def _check_stability(self, ones: Float64[Tensor, " n_atoms"]) -> None:
        """Refuse structures that a reservoir would charge without end.

        H is positive on neutral charges. It is positive on all charges if the net charge grows with
        the potential (inertia of the bordered matrix).
        """
        nothing = torch.zeros_like(self.constraints.net_charge)
        gained = self.coulomb.total(self(-ones, nothing)[0])
        flows = ((1 - self.constraints.fixed) * self.constraints.populations()).sum(1) > 0
        if bool((flows & ~(gained > 0)).any()):
            raise np.linalg.LinAlgError(_NO_MINIMUM)

    def _bordered_matrix(self, hardness: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, "s m m"]:
        """Form ``[[A + J, Cᵀ], [C, 0]]`` per structure; identity where it is empty."""
        to_slots = self.coulomb.to_slots
        empty = 1 - to_slots(torch.ones_like(hardness))
        matrix = self.coulomb.matrix() + torch.diag_embed(to_slots(hardness) + empty)
        rows = to_slots(self.constraints.members().T).transpose(1, 2)  # (s, f, m)
        nobody = (rows.sum(2) == 0).to(rows)
        upper = torch.cat([matrix, rows.transpose(1, 2)], dim=2)
        return torch.cat([upper, torch.cat([rows, torch.diag_embed(nobody)], dim=2)], dim=1)


class ConjugateGradientSolver:
    """Projected, preconditioned conjugate gradients; the matrix is only ever applied.

    Each structure has its own step lengths, and search directions leave fixed sums as they are.

    Parameters
    ----------
    coulomb
        The sum, with or without a mesh.
    hardness
        J_i in eV/e².
    tolerance
        Largest residual ``H q + Cᵀλ + g`` of an atom in eV/e.
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
        tolerance: float = 1e-6,
        guess: Float64[Tensor, " n_atoms"] | None = None,
        max_iterations: int = 500,
        unseen: bool = False,
    ):
        self.batch = coulomb.graph.batch
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.guess, self.unseen = guess, unseen
        self.iterations: list[int] = []
        with torch.no_grad():
            self.hardness = hardness.detach()
            self.apply_coulomb = without_looking(coulomb) if unseen else frozen(coulomb)
            self.constraints = ChargeConstraints(coulomb.graph)
            precondition = Preconditioner(coulomb, self.hardness, with_waves=not unseen)
            self.projection = Projection(precondition, self.constraints)
        self.total = coulomb.total

    def __call__(
        self, gradient: Float64[Tensor, " n_atoms"], net_charge: Float64[Tensor, "s f"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, "s f"]]:
        """Return charges in e and multipliers in eV/e for g in eV/e and Q in e.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the tolerance is not reached, or charge flows in from a reservoir without end.
        """
        charges, multiplier = linear.differentiable(self._solve)(-gradient, net_charge)
        return charges, multiplier

    def _solve(
        self, right: Float64[Tensor, " n_atoms"], net_charge: Float64[Tensor, "s f"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, "s f"]]:
        """Solve for −g = `right`, without derivatives."""
        start = torch.zeros_like(right) if self.guess is None else self.guess
        self.guess = None  # it is good for one right-hand side
        multiplier = torch.zeros_like(net_charge)

        def precondition(
            residual: Float64[Tensor, " n_atoms"],
        ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, " n_atoms"]]:
            # A large multiplier left in the residual would drown the projection in rounding errors
            # (Gould, Hribar & Nocedal, SIAM J. Sci. Comput. 23, 1376 (2001)).
            nonlocal multiplier
            correction, shift = self.projection(residual)
            multiplier = multiplier + shift
            return residual - self.constraints.at_atoms(shift), correction

        system = linear.System(self._hessian, precondition, self.total, self._spread)
        charges = self._iterate(system, right, self._with_sums(start, net_charge))
        return self._with_sums(charges, net_charge), multiplier

    def _iterate(
        self,
        system: linear.System,
        right: Float64[Tensor, " n_atoms"],
        start: Float64[Tensor, " n_atoms"],
    ) -> Float64[Tensor, " n_atoms"]:
        """Iterate; errors name the physical cause."""
        flowing = self.constraints.flowing
        try:
            charges, iterations = linear.conjugate_gradients(
                system, right, start, self._converged, self.max_iterations,
                check_curvature=flowing, unseen=self.unseen,
            )  # fmt: skip
        except linear.NotPositiveError as error:
            raise np.linalg.LinAlgError(_NO_MINIMUM) from error
        except np.linalg.LinAlgError as error:
            raise np.linalg.LinAlgError(
                f"conjugate gradients did not reach {self.tolerance:g} eV/e in "
                f"{self.max_iterations} iterations; is a hardness close to zero, or are atoms on "
                "top of each other?"
            ) from error
        self.iterations.append(iterations)
        return charges

    def _converged(self, residual: Float64[Tensor, " n_atoms"]) -> Bool[Tensor, " n_structures"]:
        """Whether the largest residual of each structure is small enough."""
        worst = residual.new_zeros(self.constraints.fixed.shape[0])
        return worst.scatter_reduce(0, self.batch, residual.abs(), "amax") <= self.tolerance

    def _hessian(self, charges: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """H q."""
        return self.hardness * charges + self.apply_coulomb(charges)

    def _spread(self, values: Float64[Tensor, " n_structures"]) -> Float64[Tensor, " n_atoms"]:
        """Give each atom the value of its structure."""
        return values[self.batch]

    def _with_sums(
        self, charges: Float64[Tensor, " n_atoms"], net_charge: Float64[Tensor, "s f"]
    ) -> Float64[Tensor, " n_atoms"]:
        """Distribute what is missing from fixed sums of charges over the atoms."""
        return charges + self.projection.spread(net_charge - self.constraints.total(charges))
