"""Solvers of the linear systems of charge equilibration.

With H = A + J, and C one row of ones for each sum of charges that is fixed (`ChargeConstraints`),
all of them solve

    ``H q + Cᵀλ = −g``,  ``C q = Q``

for the charges q and the multipliers λ: −λ is the electric potential that the atoms of a structure
or fragment have in common.
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

from phicalc.electrostatics.charges.preconditioner import Preconditioner
from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.sums.mesh import MeshSum

#: Takes g (n_atoms) and Q (n_structures, n_fragments), returns q and λ in the same shapes; linear
#: and differentiable in both.
Solver = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


_NO_MINIMUM = (
    "the energy has no minimum while charge may flow in from a reservoir (periodic structures: a "
    "charged slab or wire has no potential to refer to). Fix the total charge too, so that only "
    "differences of potentials count"
)


class DenseSolver:
    """Solves with the bordered matrices themselves, which are formed as constants.

    What is to be differentiated is multiplied with inverses, not solved with LU factors: inductor
    of torch 2.13 compiles `torch.linalg.lu_solve` wrongly where it is differentiated twice.

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
        self.inverse: Tensor | None = None
        with torch.no_grad():
            self.matrix = self._bordered_matrix(hardness)
            if self.constraints.flowing:
                self._check_stability(torch.ones_like(hardness))

    def __call__(
        self, gradient: Float64[Tensor, " n_atoms"], net_charge: Float64[Tensor, "s f"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, "s f"]]:
        """Solve; see `Solver`."""
        target = torch.cat([self.coulomb.to_slots(-gradient), net_charge], dim=1)[:, :, None]
        if gradient.requires_grad or net_charge.requires_grad:
            solution = (self._inverse() @ target).squeeze(2)
        else:
            solution = torch.linalg.solve(self.matrix, target).squeeze(2)
        n_slots = target.shape[1] - net_charge.shape[1]
        return self.coulomb.from_slots(solution[:, :n_slots]), solution[:, n_slots:]

    def _inverse(self) -> Float64[Tensor, "s m m"]:
        """Inverse of the bordered matrices, computed once."""
        if self.inverse is None:
            with torch.no_grad():
                self.inverse = torch.linalg.inv(self.matrix)
        return self.inverse

    def _check_stability(self, ones: Tensor) -> None:
        """Refuse structures that a reservoir would charge without end.

        H is positive on neutral charges. It is on all of them if the net charge grows with the
        potential (inertia of the bordered matrix).
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

    Each structure has step lengths of its own, and search directions leave fixed sums as they are.
    Gradients are solutions of the same system.

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
        When to give up.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the tolerance is not reached, or charge flows in from a reservoir without end.
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
            self.constraints = ChargeConstraints(coulomb.graph)
            self._set_projection()

    def __call__(
        self, gradient: Float64[Tensor, " n_atoms"], net_charge: Float64[Tensor, "s f"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, "s f"]]:
        """Solve by iteration; see `Solver`."""
        return _Solve.apply(self, gradient, net_charge)

    def solve(
        self, gradient: Float64[Tensor, " n_atoms"], net_charge: Float64[Tensor, "s f"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, "s f"]]:
        """Solve without leaving a trace for derivatives."""
        fixed, at_atoms = self.constraints.total, self.constraints.at_atoms
        start = torch.zeros_like(gradient) if self.guess is None else self.guess
        self.guess = None  # it is good for one right-hand side
        charges = start + self._spread(net_charge - fixed(start))
        residual = -gradient - self._hessian(charges)
        direction, multiplier = self._project(residual)
        residual = residual - at_atoms(multiplier)
        product = self.total(residual * direction)
        for iteration in range(self.max_iterations + 1):
            active = self._unfinished(residual)
            if not bool(active.any()):
                self.iterations.append(iteration)
                return charges + self._spread(net_charge - fixed(charges)), multiplier
            image = self._hessian(direction)
            # Finished structures stand still: what a batch gives does not depend on its company.
            curvature = self.total(direction * image)
            if self.constraints.flowing and bool((active & (curvature <= 0)).any()):
                raise np.linalg.LinAlgError(_NO_MINIMUM)
            step = torch.where(active, product / curvature, 0.0)[self.batch]
            charges = charges + step * direction
            residual = residual - step * image
            # A large multiplier left in the residual would drown the projection in rounding errors
            # (Gould, Hribar & Nocedal, SIAM J. Sci. Comput. 23, 1376 (2001)).
            correction, shift = self._project(residual)
            residual, multiplier = residual - at_atoms(shift), multiplier + shift
            old, product = product, self.total(residual * correction)
            growth = torch.where(active, product / old, 0.0)[self.batch]
            direction = correction + growth * direction
        raise np.linalg.LinAlgError(
            f"conjugate gradients did not reach {self.tolerance:g} eV/e in {self.max_iterations} "
            "iterations; is a hardness close to zero, or are atoms on top of each other?"
        )

    def _unfinished(self, residual: Tensor) -> Tensor:
        """Which structures have an atom whose residual is too large."""
        worst = residual.new_zeros(self.constraints.fixed.shape[0])
        worst = worst.scatter_reduce(0, self.batch, residual.abs(), "amax")
        return ~(worst <= self.tolerance)  # NaN is not an end

    def _hessian(self, charges: Tensor) -> Tensor:
        return self.hardness * charges + self.apply_coulomb(charges)

    def _set_projection(self) -> None:
        """Prepare the projection: M⁻¹Cᵀ, and the inverse of C M⁻¹Cᵀ for each structure."""
        members = self.constraints.members()
        self.response = torch.stack([self.precondition(row) for row in members])  # (f, n_atoms)
        matrix = torch.stack([self.constraints.total(row) for row in self.response], dim=2)
        nobody = (matrix.diagonal(dim1=1, dim2=2) == 0).to(matrix)
        self.schur = torch.linalg.inv(matrix + torch.diag_embed(nobody))  # (s, f, f)

    def _spread(self, missing: Tensor) -> Tensor:
        """Distribute missing charges over the atoms of each fragment."""
        return self._respond(self._solve_schur(missing))

    def _project(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Preconditioned residual that changes no fixed sum, and the multipliers it takes."""
        correction = self.precondition(residual)
        multiplier = self._solve_schur(self.constraints.total(correction))
        return correction - self._respond(multiplier), multiplier

    def _solve_schur(self, sums: Tensor) -> Tensor:
        return (self.schur @ sums[:, :, None]).squeeze(2)

    def _respond(self, multiplier: Tensor) -> Tensor:
        """M⁻¹Cᵀλ."""
        return (self.response * multiplier[self.batch].T).sum(0)


class _Solve(Function):
    """The solution as a linear function of the right-hand side; its gradient is one more."""

    @staticmethod
    def forward(
        ctx: Any, solver: ConjugateGradientSolver, gradient: Tensor, net_charge: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.solver = solver
        with torch.no_grad():
            return solver.solve(gradient.detach(), net_charge.detach())

    @staticmethod
    def backward(ctx: Any, of_charges: Tensor, of_multiplier: Tensor) -> tuple[Any, ...]:
        # The tolerance is meant for charges and electronegativities; a loss has a scale of its own.
        largest = torch.cat([of_charges, of_multiplier.reshape(-1)]).detach().abs().max()
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
    n, shape, n_nodes = mesh.offset.shape[1], mesh.shape, mesh.order**3
    parts = list(mesh.shares(torch.ones(n).double()))
    nodes, shares = (
        np.concatenate([part.detach().reshape(n_nodes, -1).T.numpy() for part in each]).reshape(-1)
        for each in zip(*parts, strict=True)
    )
    starts = np.arange(n + 1) * n_nodes
    matrix = csr_matrix((shares, nodes, starts), shape=(n, math.prod(shape)))

    @torch.no_grad()
    def apply(charges: Tensor) -> Tensor:
        on_mesh = torch.from_numpy(matrix.T @ charges.numpy()).reshape(shape)
        felt = mesh.smooth(on_mesh).reshape(-1).numpy()
        return torch.from_numpy(matrix @ felt) - mesh.ripple * charges

    return apply
