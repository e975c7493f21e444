"""Linear systems whose solutions can be differentiated any number of times.

A solver takes the matrix as a constant: its solution is a linear function of the right-hand sides,
and the gradient with respect to them is the solution of the adjoint system. `refine` adds the
derivatives of the matrix. Vectors have one or several axes; sums over the structures of a
batch come with each system.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import Function

Vector = Float[Tensor, "n *channels"]
"""One number per unknown, in one or several channels."""
Scalars = Float[Tensor, "n_structures *channels"]
"""One number per structure and channel."""
Solve = Callable[..., tuple[Float[Tensor, "..."], ...]]
"""Takes right-hand sides, returns as many solutions; shapes are those of the system."""


class System(NamedTuple):
    """A symmetric, positive definite matrix that is only ever applied, one block per structure."""

    apply: Callable[[Vector], Vector]
    """Multiplies the matrix by a vector."""
    precondition: Callable[[Vector], tuple[Vector, Vector]]
    """Takes a residual, returns the residual and an approximate solution for it.

    If the solution is constrained, the second stays within the constraints, and the first lacks
    what the constraints bear.
    """
    total: Callable[[Vector], Scalars]
    """Sums over each structure."""
    spread: Callable[[Scalars], Vector]
    """Gives each unknown the number of its structure."""


class NotPositiveError(np.linalg.LinAlgError):
    """The matrix is not positive along a search direction."""


def conjugate_gradients(
    system: System,
    right: Float[Tensor, "n *channels"],
    start: Float[Tensor, "n *channels"] | None,
    converged: Callable[[Vector], Bool[Tensor, "n_structures *channels"]],
    max_iterations: int,
    *,
    check_curvature: bool = False,
    unseen: bool = False,
) -> tuple[Float[Tensor, "n *channels"], int]:
    """Solve by conjugate gradients with step lengths of each structure and channel.

    Structures that have converged stand still: their solutions do not depend on the others.

    Parameters
    ----------
    system
        The matrix and its preconditioner.
    right
        Right-hand side.
    start
        First approximation; zero by default.
    converged
        Takes a residual, returns whether it is small enough. NaN must not be.
    max_iterations
        Largest number of products with the matrix, besides that with `start`.
    check_curvature
        Whether to refuse a matrix that is not positive.
    unseen
        Whether to do all `max_iterations` without looking at any number, as what is recorded for a
        GPU must: solutions that have not converged then are NaN.

    Returns
    -------
    solution
        In the unit of `right` divided by that of the matrix.
    iterations
        Number of iterations.

    Raises
    ------
    NotPositiveError
        If `check_curvature` is set and the matrix is not positive.
    numpy.linalg.LinAlgError
        If `converged` is not satisfied after `max_iterations`.
    """
    solution = torch.zeros_like(right) if start is None else start
    residual = right if start is None else right - system.apply(start)
    residual, direction = system.precondition(residual)
    product = system.total(residual * direction)
    for iteration in range(max_iterations + 1):
        active = ~converged(residual)
        if unseen and iteration == max_iterations:
            return torch.where(system.spread(active), torch.nan, solution), iteration
        if not unseen and not bool(active.any()):
            return solution, iteration
        image = system.apply(direction)
        curvature = system.total(direction * image)
        if check_curvature and bool((active & (curvature <= 0)).any()):
            raise NotPositiveError("the matrix is not positive definite")
        step = system.spread(torch.where(active, product / curvature, 0.0))
        solution = solution + step * direction
        residual, correction = system.precondition(residual - step * image)
        old, product = product, system.total(residual * correction)
        growth = system.spread(torch.where(active, product / old, 0.0))
        direction = correction + growth * direction
    raise np.linalg.LinAlgError(f"no convergence in {max_iterations} iterations")


class DenseSolver:
    """Solves with one matrix per structure; differentiable in the right-hand side.

    Gradients multiply by inverses instead of solving with LU factors: inductor of torch 2.13
    compiles the second derivative of `torch.linalg.lu_solve` wrongly. That of Cholesky factors,
    which positive matrices have, is right.

    Parameters
    ----------
    matrix
        The matrices, used as constants.
    positive
        Whether they are symmetric and positive definite.
    """

    def __init__(self, matrix: Float[Tensor, "*batch m m"], positive: bool = False):
        self.matrix = matrix.detach()
        self.inverse: Tensor | None = None
        self.factor: Tensor | None = None
        if positive:
            factor, failed = torch.linalg.cholesky_ex(self.matrix)
            self.factor = torch.where(failed[..., None, None] > 0, torch.nan, factor)

    def __call__(self, right: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return the solutions; NaN if a matrix that should be positive is not."""
        column = right[..., None]
        if self.factor is not None:
            return torch.cholesky_solve(column, self.factor).squeeze(-1)
        if not right.requires_grad:
            return torch.linalg.solve(self.matrix, column).squeeze(-1)
        if self.inverse is None:
            self.inverse = torch.linalg.inv(self.matrix)
        return (self.inverse @ column).squeeze(-1)


def differentiable(solve: Solve, adjoint: Solve | None = None) -> Solve:
    """Return a solver without derivatives as one with derivatives of any order.

    Parameters
    ----------
    solve
        Solves the system.
    adjoint
        Solves the system with the transposed matrix; by default the matrix is symmetric.
    """
    return lambda *right: _Solution.apply(solve, adjoint or solve, *right)


class _Solution(Function):
    """Solution as a linear function of the right-hand sides; its gradient is the adjoint one."""

    @staticmethod
    def forward(
        ctx: Any, solve: Solve, adjoint: Solve, *right: Float[Tensor, "..."]
    ) -> tuple[Float[Tensor, "..."], ...]:
        ctx.solvers = adjoint, solve
        with torch.no_grad():
            return solve(*(each.detach() for each in right))

    @staticmethod
    def backward(ctx: Any, *cotangents: Float[Tensor, "..."]) -> tuple[Any, ...]:
        # Tolerances are meant for the right-hand sides of the user; a loss has any scale.
        flat = torch.cat([each.detach().reshape(-1) for each in cotangents])
        largest = torch.linalg.vector_norm(flat, torch.inf)
        scale = torch.where(largest > 0, largest, 1.0)
        solutions = _Solution.apply(*ctx.solvers, *(each / scale for each in cotangents))
        return None, None, *(scale * each for each in solutions)


def refine(
    solve: Callable[..., Float[Tensor, "..."]],
    right: tuple[Float[Tensor, "..."], ...],
    residual: Callable[[Float[Tensor, "..."]], tuple[Float[Tensor, "..."], ...]],
    derivatives: int,
) -> Float[Tensor, "..."]:
    """Return the solution of a linear system with exact derivatives, those of the matrix included.

    The first solution is followed by Newton steps. Each changes nothing in value but makes one more
    order of derivatives exact, because the residual it corrects is differentiable in all that the
    matrix H depends on: with the constant matrix H₀, a step near this point turns an error e into
    (1 − H₀⁻¹H) e, where H − H₀ is of first order in whatever H depends on. Only products with H are
    differentiated, never the solver, and the backward pass of a step is the adjoint system.

    Parameters
    ----------
    solve
        Takes right-hand sides, returns the solution: linear and differentiable, H₀ a constant.
    right
        The right-hand sides.
    residual
        Takes a solution, returns what is missing on the right-hand sides; differentiable.
    derivatives
        Number of exact derivatives of the solution: 0 for a constant, 1 for forces from the
        solution, 2 for training on such forces (or for a Hessian).
    """
    if derivatives <= 0:
        return solve(*(each.detach() for each in right))
    # Wrong derivatives are no harm here, and need not be cut off: each step corrects one order.
    solution = solve(*right)
    for _ in range(derivatives):
        solution = solution + solve(*residual(solution))
    return solution
