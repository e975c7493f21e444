"""Solvers of the screened Poisson equation ``(L + κ²) φ = q`` on the graph of atoms.

Each channel has its own screening κ² (1/Å); q is in e and φ in e Å.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from phicalc import linear
from phicalc.electrostatics.laplacian import Laplacian
from phicalc.graph import from_slots, sum_per_structure, to_slots

PoissonSolver = Callable[[Float64[Tensor, "n_atoms c"]], Float64[Tensor, "n_atoms c"]]
"""Takes q (e), returns φ (e Å); linear and differentiable in q."""

#: Largest structures whose matrices are factorized: alone, and where derivatives of φ are wanted.
DENSE_POISSON, DENSE_TRAINING = 200, 400


def screened_potential(
    laplacian: Laplacian,
    screening: Float64[Tensor, " c"],
    charges: Float64[Tensor, "n_atoms c"],
    derivatives: int,
) -> Float64[Tensor, "n_atoms c"]:
    """Return φ of ``(L + κ²) φ = q`` in e Å; derivatives by `phicalc.linear.refine`.

    Matrices of small structures are factorized, larger ones are solved by conjugate gradients.

    Parameters
    ----------
    laplacian
        L of the batch.
    screening
        κ² of each channel in 1/Å, positive.
    charges
        q in e.
    derivatives
        Number of exact derivatives of φ.
    """
    assert laplacian.graph.atom_of_slot is not None
    largest = laplacian.graph.atom_of_slot.shape[1]
    small = largest <= (DENSE_TRAINING if derivatives > 0 else DENSE_POISSON)
    solver = (DensePoisson if small else IterativePoisson)(laplacian, screening)

    def residual(potential: Float64[Tensor, "n_atoms c"]) -> tuple[Float64[Tensor, "n_atoms c"]]:
        return (charges - laplacian(potential) - screening * potential,)

    return linear.refine(solver, (charges,), residual, derivatives)


class DensePoisson:
    """Solves with Cholesky factors of the matrices, which are formed as constants.

    Parameters
    ----------
    laplacian, screening
        L and κ² in 1/Å.
    """

    def __init__(self, laplacian: Laplacian, screening: Float64[Tensor, " c"]):
        self.graph = laplacian.graph
        with torch.no_grad():
            matrix = laplacian.matrix()[:, None]  # (s, 1, m, m)
            unity = torch.eye(matrix.shape[-1]).to(matrix)
            matrix = matrix + screening[:, None, None] * unity
            self.solve = linear.DenseSolver(matrix, positive=True)

    def __call__(self, charges: Float64[Tensor, "n_atoms c"]) -> Float64[Tensor, "n_atoms c"]:
        """Return φ in e Å for charges in e."""
        sources = to_slots(charges, self.graph).transpose(1, 2)  # (s, c, m)
        return from_slots(self.solve(sources).transpose(1, 2), self.graph)


class IterativePoisson:
    """Conjugate gradients with the diagonal as preconditioner; O(N).

    The number of iterations does not grow with N, since κ² bounds the condition number.

    Parameters
    ----------
    laplacian, screening
        L and κ² in 1/Å.
    tolerance
        Largest residual relative to the charges (root mean squares).
    max_iterations
        Number of iterations after which to give up.
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
            self.apply_laplacian = laplacian.frozen()

    def __call__(self, charges: Float64[Tensor, "n_atoms c"]) -> Float64[Tensor, "n_atoms c"]:
        """Return φ in e Å for charges in e.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the tolerance is not reached.
        """
        return linear.differentiable(self._solve)(charges)[0]

    def _solve(self, charges: Float64[Tensor, "n_atoms c"]) -> tuple[Float64[Tensor, "n_atoms c"]]:
        """Solve without derivatives."""
        goal = self.tolerance**2 * self._total(charges * charges)

        def converged(residual: Float64[Tensor, "n_atoms c"]) -> Bool[Tensor, "n_structures c"]:
            return self._total(residual * residual) <= goal

        system = linear.System(self._apply, self._precondition, self._total, self._spread)
        try:
            potential, iterations = linear.conjugate_gradients(
                system, charges, None, converged, self.max_iterations
            )
        except np.linalg.LinAlgError as error:
            raise np.linalg.LinAlgError(
                f"the Poisson solver did not reach {self.tolerance:g} in {self.max_iterations} "
                "iterations; are atoms on top of each other?"
            ) from error
        self.iterations.append(iterations)
        return (potential,)

    def _apply(self, values: Float64[Tensor, "n_atoms c"]) -> Float64[Tensor, "n_atoms c"]:
        """(L + κ²) φ."""
        return self.apply_laplacian(values) + self.screening * values

    def _precondition(
        self, residual: Float64[Tensor, "n_atoms c"]
    ) -> tuple[Float64[Tensor, "n_atoms c"], Float64[Tensor, "n_atoms c"]]:
        """Residual, and its quotient by the diagonal."""
        return residual, self.inverse_diagonal * residual

    def _total(self, values: Float64[Tensor, "n_atoms c"]) -> Float64[Tensor, "n_structures c"]:
        """Sum over each structure."""
        if self.graph.n_structures == 1:
            return values.sum(0, keepdim=True)
        return sum_per_structure(values, self.graph)

    def _spread(self, values: Float64[Tensor, "n_structures c"]) -> Float64[Tensor, "#n_atoms c"]:
        """Give each atom the value of its structure."""
        return values if self.graph.n_structures == 1 else values[self.graph.batch]
