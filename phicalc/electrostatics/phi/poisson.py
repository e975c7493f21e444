"""Solvers of the screened Poisson equation ``(L + κ²) φ = q`` on the graph of atoms.

Each channel has a screening κ² of its own (1/Å); q is in e and φ in e Å.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.autograd import Function

from phicalc.electrostatics.laplacian import Laplacian
from phicalc.graph import from_slots, sum_per_structure, to_slots

#: Takes q (n_atoms, c) and returns φ; linear and differentiable in q.
PoissonSolver = Callable[[Tensor], Tensor]

#: Largest structures whose matrices are factorized: alone, and where derivatives of φ are wanted.
DENSE_POISSON, DENSE_TRAINING = 200, 400


def screened_potential(
    laplacian: Laplacian,
    screening: Float64[Tensor, " c"],
    charges: Float64[Tensor, "n_atoms c"],
    order: int,
) -> Float64[Tensor, "n_atoms c"]:
    """Solve ``(L + κ²) φ = q``.

    The matrix is taken as a constant, and each Newton step after the solution makes one more order
    of derivatives exact, as in `phicalc.electrostatics.charges.qeq.equilibrate`.

    Parameters
    ----------
    laplacian
        L of the batch.
    screening
        κ² of each channel in 1/Å, positive.
    charges
        q in e.
    order
        Number of derivatives of φ that come out right.
    """
    solver = choose_solver(laplacian, screening, order)
    if order == 0:
        return solver(charges.detach())
    potential = solver(charges)
    for _ in range(order):
        residual = charges - laplacian(potential) - screening * potential
        potential = potential + solver(residual)
    return potential


def choose_solver(
    laplacian: Laplacian, screening: Float64[Tensor, " c"], order: int
) -> PoissonSolver:
    """Factorized matrices for small structures, conjugate gradients for large ones."""
    assert laplacian.graph.atom_of_slot is not None
    largest = laplacian.graph.atom_of_slot.shape[1]
    if largest <= (DENSE_TRAINING if order else DENSE_POISSON):
        return DensePoisson(laplacian, screening)
    return IterativePoisson(laplacian, screening)


class DensePoisson:
    """Solves with Cholesky factors of the matrices, which are formed as constants.

    Parameters
    ----------
    laplacian, screening
        L and κ².
    """

    def __init__(self, laplacian: Laplacian, screening: Float64[Tensor, " c"]):
        self.graph = laplacian.graph
        with torch.no_grad():
            matrix = laplacian.matrix()[:, None]  # (s, 1, m, m)
            unity = torch.eye(matrix.shape[-1]).to(matrix)
            matrix = matrix + screening[:, None, None] * unity  # positive definite
            factor, failed = torch.linalg.cholesky_ex(matrix)  # NaN where it failed
            self.factor = torch.where(failed[..., None, None] > 0, torch.nan, factor)

    def __call__(self, charges: Float64[Tensor, "n_atoms c"]) -> Float64[Tensor, "n_atoms c"]:
        """Solve."""
        sources = to_slots(charges, self.graph).transpose(1, 2)[..., None]  # (s, c, m, 1)
        solution = torch.cholesky_solve(sources, self.factor)
        return from_slots(solution.squeeze(3).transpose(1, 2), self.graph)


class IterativePoisson:
    """Conjugate gradients with the diagonal as preconditioner; O(N).

    Each structure and channel has step lengths of its own and stands still when it is done: what a
    batch gives does not depend on its company. The number of iterations does not grow with N, since
    κ² bounds the condition number.

    Parameters
    ----------
    laplacian, screening
        L and κ².
    tolerance
        Largest residual relative to the charges (root mean squares).
    max_iterations
        When to give up.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the tolerance is not reached.
    """

    def __init__(
        self,
        laplacian: Laplacian,
        screening: Float64[Tensor, " c"],
        tolerance: float = 1e-9,
        max_iterations: int = 1000,
    ):
        self.graph = laplacian.graph
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.iterations: list[int] = []
        with torch.no_grad():
            self.screening = screening.detach()
            self.inverse_diagonal = 1 / (laplacian.degree()[:, None] + self.screening)
            self.apply = _frozen(laplacian)

    def __call__(self, charges: Float64[Tensor, "n_atoms c"]) -> Float64[Tensor, "n_atoms c"]:
        """Solve."""
        solution: Tensor = _Solve.apply(self, charges)
        return solution

    def solve(self, charges: Float64[Tensor, "n_atoms c"]) -> Float64[Tensor, "n_atoms c"]:
        """Solve without leaving a trace for derivatives."""
        potential, residual = torch.zeros_like(charges), charges
        direction = self.inverse_diagonal * residual
        product = self._sum(residual * direction)
        goal = self.tolerance**2 * self._sum(charges * charges)
        for iteration in range(self.max_iterations + 1):
            active = ~(self._sum(residual * residual) <= goal)  # NaN is not an end
            if not bool(active.any()):
                self.iterations.append(iteration)
                return potential
            image = self.apply(direction) + self.screening * direction
            step = torch.where(active, product / self._sum(direction * image), 0.0)
            potential = potential + self._spread(step) * direction
            residual = residual - self._spread(step) * image
            correction = self.inverse_diagonal * residual
            old, product = product, self._sum(residual * correction)
            growth = torch.where(active, product / old, 0.0)
            direction = correction + self._spread(growth) * direction
        raise np.linalg.LinAlgError(
            f"the Poisson solver did not reach {self.tolerance:g} in {self.max_iterations} "
            "iterations; are atoms on top of each other?"
        )

    def _sum(self, values: Tensor) -> Tensor:
        """Sum over each structure."""
        if self.graph.n_structures == 1:
            return values.sum(0, keepdim=True)
        return sum_per_structure(values, self.graph)

    def _spread(self, values: Tensor) -> Tensor:
        """Give the atoms what belongs to their structure."""
        return values if self.graph.n_structures == 1 else values[self.graph.batch]


class _Solve(Function):
    """The solution as a linear function of the charges; its gradient is one more."""

    @staticmethod
    def forward(ctx: Any, solver: IterativePoisson, charges: Tensor) -> Tensor:
        ctx.solver = solver
        with torch.no_grad():
            return solver.solve(charges.detach())

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        return None, _Solve.apply(ctx.solver, cotangent)


def _frozen(laplacian: Laplacian) -> Callable[[Tensor], Tensor]:
    """φ → L φ as a constant, prepared for being called often."""
    if laplacian.weights.device.type != "cpu":
        return laplacian
    matrix = laplacian.sparse()
    return lambda values: torch.from_numpy(matrix @ values.numpy())
