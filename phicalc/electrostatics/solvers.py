"""Solvers of the linear systems of charge equilibration.

With H = A + J and one border per structure for its total charge, all of them solve

    ``H q + λ = −g``,  ``Σ q = Q``

for the charges q and the multiplier λ of each structure (minus its chemical potential).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.autograd import Function

from phicalc.electrostatics.mesh import MeshSum
from phicalc.electrostatics.preconditioner import Preconditioner
from phicalc.electrostatics.sums import CoulombSum

#: Takes g (n_atoms) and Q (n_structures), returns q and λ; linear and differentiable in both.
Solver = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class DenseSolver:
    """Inverses of the bordered matrices, which are formed as constants.

    Inverses and not LU factors: inductor of torch 2.13 compiles `torch.linalg.lu_solve` wrongly
    where it is differentiated twice.

    Parameters
    ----------
    coulomb
        The sum, without a mesh.
    hardness
        J_i in eV/e².
    """

    def __init__(self, coulomb: CoulombSum, hardness: Float64[Tensor, " n_atoms"]):
        self.coulomb = coulomb
        self.inverse = torch.linalg.inv(_bordered_matrix(coulomb, hardness))

    def __call__(
        self, gradient: Float64[Tensor, " n_atoms"], total: Float64[Tensor, " n_structures"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, " n_structures"]]:
        """Multiply with the inverse; see `Solver`."""
        target = torch.cat([self.coulomb.to_slots(-gradient), total[:, None]], dim=1)
        solution = (self.inverse @ target[:, :, None]).squeeze(2)
        return self.coulomb.from_slots(solution[:, :-1]), solution[:, -1]


def _bordered_matrix(
    coulomb: CoulombSum, hardness: Float64[Tensor, " n_atoms"]
) -> Float64[Tensor, "s m m"]:
    """Form ``[[A + J, 1], [1ᵀ, 0]]`` as a constant, per structure; identity where it is empty."""
    with torch.no_grad():
        occupied = coulomb.to_slots(torch.ones_like(hardness))
        nobody = (occupied.sum(dim=1, keepdim=True) == 0).to(occupied)
        matrix = coulomb.matrix() + torch.diag_embed(coulomb.to_slots(hardness) + 1 - occupied)
        border = torch.cat([occupied, nobody], dim=1)
        matrix = torch.cat([matrix, occupied[:, :, None]], dim=2)
        return torch.cat([matrix, border[:, None, :]], dim=1)


class ConjugateGradientSolver:
    """Projected, preconditioned conjugate gradients; the matrix is only ever applied.

    Each structure has step lengths of its own, and the search directions have no net charge.
    Gradients are solutions of the same system.

    Parameters
    ----------
    coulomb
        The sum, with or without a mesh.
    hardness
        J_i in eV/e².
    tolerance
        Largest residual ``H q + λ + g`` of an atom in eV/e.
    guess
        Charges in e from which the first solution starts.
    max_iterations
        When to give up.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the tolerance is not reached.
    """

    def __init__(
        self,
        coulomb: CoulombSum,
        hardness: Float64[Tensor, " n_atoms"],
        tolerance: float = 1e-6,
        guess: Float64[Tensor, " n_atoms"] | None = None,
        max_iterations: int = 500,
    ):
        self.total = coulomb.total
        self.batch = coulomb.graph.batch
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.guess = guess
        self.iterations: list[int] = []
        with torch.no_grad():
            self.hardness = hardness.detach()
            self.apply_coulomb = frozen(coulomb)
            self.precondition = Preconditioner(coulomb, self.hardness)
            self.response = self.precondition(torch.ones_like(self.hardness))
            # A structure without atoms has no weight; there is nothing to divide then.
            self.weight = self.total(self.response).clamp(min=torch.finfo(torch.float64).tiny)

    def __call__(
        self, gradient: Float64[Tensor, " n_atoms"], total: Float64[Tensor, " n_structures"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, " n_structures"]]:
        """Solve by iteration; see `Solver`."""
        return _Solve.apply(self, gradient, total)

    def solve(
        self, gradient: Float64[Tensor, " n_atoms"], total: Float64[Tensor, " n_structures"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, " n_structures"]]:
        """Solve without leaving a trace for derivatives."""
        start = torch.zeros_like(gradient) if self.guess is None else self.guess
        self.guess = None  # it is good for one right-hand side
        charges = start + self._spread(total - self.total(start))
        residual = -gradient - self._hessian(charges)
        direction, multiplier = self._project(residual)
        residual = residual - multiplier[self.batch]
        product = self.total(residual * direction)
        for iteration in range(self.max_iterations + 1):
            active = self._unfinished(residual)
            if not bool(active.any()):
                self.iterations.append(iteration)
                return charges + self._spread(total - self.total(charges)), multiplier
            image = self._hessian(direction)
            # Finished structures stand still: what a batch gives does not depend on its company.
            step = torch.where(active, product / self.total(direction * image), 0.0)[self.batch]
            charges = charges + step * direction
            residual = residual - step * image
            # A large multiplier left in the residual would drown the projection in rounding errors
            # (Gould, Hribar & Nocedal, SIAM J. Sci. Comput. 23, 1376 (2001)).
            correction, shift = self._project(residual)
            residual, multiplier = residual - shift[self.batch], multiplier + shift
            old, product = product, self.total(residual * correction)
            growth = torch.where(active, product / old, 0.0)[self.batch]
            direction = correction + growth * direction
        raise np.linalg.LinAlgError(
            f"conjugate gradients did not reach {self.tolerance:g} eV/e in {self.max_iterations} "
            "iterations; is a hardness close to zero, or are atoms on top of each other?"
        )

    def _unfinished(self, residual: Tensor) -> Tensor:
        """Which structures have an atom whose residual is too large."""
        worst = residual.new_zeros(len(self.weight))
        worst = worst.scatter_reduce(0, self.batch, residual.abs(), "amax")
        return ~(worst <= self.tolerance)  # NaN is not an end

    def _hessian(self, charges: Tensor) -> Tensor:
        return self.hardness * charges + self.apply_coulomb(charges)

    def _spread(self, missing: Tensor) -> Tensor:
        """Distribute missing charge over the atoms of each structure."""
        return self.response * (missing / self.weight)[self.batch]

    def _project(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Preconditioned residual without net charge, and the multiplier that makes it so."""
        multiplier = self.total(self.response * residual) / self.weight
        correction = self.precondition(residual) - multiplier[self.batch] * self.response
        return correction, multiplier


class _Solve(Function):
    """The solution as a linear function of the right-hand side; its gradient is one more."""

    @staticmethod
    def forward(
        ctx: Any, solver: ConjugateGradientSolver, gradient: Tensor, total: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.solver = solver
        with torch.no_grad():
            return solver.solve(gradient.detach(), total.detach())

    @staticmethod
    def backward(ctx: Any, of_charges: Tensor, of_multiplier: Tensor) -> tuple[Any, ...]:
        # The tolerance is meant for charges and electronegativities; a loss has a scale of its own.
        largest = torch.cat([of_charges, of_multiplier]).detach().abs().max()
        scale = torch.where(largest > 0, largest, 1.0)
        charges, multiplier = _Solve.apply(ctx.solver, -of_charges / scale, of_multiplier / scale)
        return None, -scale * charges, scale * multiplier


def frozen(coulomb: CoulombSum) -> Callable[[Tensor], Tensor]:
    """Return charges → A q for this geometry as a constant, prepared for being called often."""
    apply_pairs = _frozen_pairs(coulomb)
    meshes = [(atoms, _frozen_mesh(mesh)) for atoms, mesh in coulomb.meshes]

    def apply(charges: Tensor) -> Tensor:
        potential = apply_pairs(charges) + coulomb.potential_of_waves(charges)
        for atoms, apply_mesh in meshes:
            potential[atoms] += apply_mesh(charges[atoms])
        return potential

    return apply


def _frozen_pairs(coulomb: CoulombSum) -> Callable[[Tensor], Tensor]:
    """Pair part of A as a sparse matrix."""
    first, second = coulomb.plan.pair_index
    if first.device.type != "cpu":
        return coulomb.potential_of_pairs
    n_atoms = coulomb.graph.n_atoms
    index = (first.numpy(), second.numpy())
    upper = csr_matrix((coulomb.pair.detach().numpy(), index), shape=(n_atoms, n_atoms))
    lower = upper.T.tocsr()

    def apply(charges: Tensor) -> Tensor:
        q = charges.numpy()
        return torch.from_numpy(upper @ q + lower @ q)

    return apply


def _frozen_mesh(mesh: MeshSum) -> Callable[[Tensor], Tensor]:
    """Mesh part of A, with the shares of every charge as a sparse matrix."""
    if mesh.offset.device.type != "cpu":
        return mesh.potential
    n, shape = mesh.offset.shape[1], mesh.shape
    shares = mesh.shares(torch.ones(n).double()).detach().reshape(-1, n).T.reshape(-1).numpy()
    nodes = mesh.nodes.reshape(-1, n).T.reshape(-1).numpy()
    starts = np.arange(n + 1) * mesh.order**3
    matrix = csr_matrix((shares, nodes, starts), shape=(n, math.prod(shape)))

    @torch.no_grad()
    def apply(charges: Tensor) -> Tensor:
        on_mesh = torch.from_numpy(matrix.T @ charges.numpy()).reshape(shape)
        felt = mesh.smooth(torch.fft.rfftn(on_mesh)).reshape(-1).numpy()
        return torch.from_numpy(matrix @ felt) - mesh.ripple * charges

    return apply
