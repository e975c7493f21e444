"""An approximate inverse of A + J that is cheap to apply, and its projection onto constraints."""

import math

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from phicalc.electrostatics.constraints import ChargeConstraints
from phicalc.electrostatics.sums import kernels
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.units import COULOMB_CONSTANT

#: Waves of one structure (cosine and sine each): more save iterations, but cost more than these.
_MOST_WAVES = 100


class Preconditioner:
    """Inverse of ``M = D + W Wᵀ``.

    D is the hardness and the energy of each charge by itself. The columns of W are the waves with
    the smallest k ≠ 0 of crystals: the part of A that grows with the size of the cell, which D
    alone would leave to the iterations. M is inverted by Woodbury's formula. Structures with open
    axes have no waves here.

    Parameters
    ----------
    coulomb
        The sum whose matrix A is meant.
    hardness
        J_i in eV/e².
    with_waves
        Without, M is D alone: nothing has to be looked at, and iterations take longer.
    """

    def __init__(
        self,
        coulomb: CoulombSum,
        hardness: Float64[Tensor, " n_atoms"],
        with_waves: bool = True,
    ):
        itself = kernels.self_interaction(coulomb.smearing, torch.zeros_like(hardness))
        self.inverse = 1 / (hardness + itself)
        self.waves: list[tuple[Tensor, Tensor, Tensor]] = []
        if not with_waves:
            return
        crystals = coulomb.graph.pbc.all(1) & (coulomb.plan.splitting > 0)
        for structure in crystals.nonzero()[:, 0].tolist():
            atoms = coulomb.atoms_of(structure)
            waves = _longest_waves(coulomb, structure, atoms)
            weighted = self.inverse[atoms, None] * waves
            core = torch.eye(waves.shape[1]).to(waves) + waves.T @ weighted
            self.waves.append((atoms, weighted, torch.linalg.cholesky(core)))

    def __call__(self, residual: Float64[Tensor, " n_atoms"]) -> Float64[Tensor, " n_atoms"]:
        """Return M⁻¹ r in e for a residual r in eV/e."""
        result = self.inverse * residual
        for atoms, weighted, factor in self.waves:
            amplitudes = torch.cholesky_solve((weighted.T @ residual[atoms])[:, None], factor)
            result[atoms] -= (weighted @ amplitudes).squeeze(1)
        return result


class Projection:
    """Restricts a preconditioner M⁻¹ to steps that change no fixed sum of charges.

    Parameters
    ----------
    precondition
        M⁻¹.
    constraints
        The sums that are fixed.
    """

    def __init__(self, precondition: Preconditioner, constraints: ChargeConstraints):
        self.precondition, self.constraints = precondition, constraints
        members = constraints.members()
        self.response = torch.stack([precondition(row) for row in members])  # M⁻¹Cᵀ, (f, n_atoms)
        matrix = torch.stack([constraints.total(row) for row in self.response], dim=2)
        nobody = (matrix.diagonal(dim1=1, dim2=2) == 0).to(matrix)
        schur = matrix + torch.diag_embed(nobody)  # C M⁻¹Cᵀ, (s, f, f)
        self.schur = 1 / schur if schur.shape[1] == 1 else torch.linalg.inv(schur)

    def __call__(
        self, residual: Float64[Tensor, " n_atoms"]
    ) -> tuple[Float64[Tensor, " n_atoms"], Float64[Tensor, "s f"]]:
        """Return the step in e for a residual in eV/e, and its multipliers λ in eV/e."""
        step = self.precondition(residual)
        multiplier = self._solve_schur(self.constraints.total(step))
        return step - self._respond(multiplier), multiplier

    def spread(self, missing: Float64[Tensor, "s f"]) -> Float64[Tensor, " n_atoms"]:
        """Distribute charges in e, one for each fixed sum, over the atoms."""
        return self._respond(self._solve_schur(missing))

    def _solve_schur(self, sums: Float64[Tensor, "s f"]) -> Float64[Tensor, "s f"]:
        """(C M⁻¹Cᵀ)⁻¹ applied to sums of charges."""
        return (self.schur @ sums[:, :, None]).squeeze(2)

    def _respond(self, multiplier: Float64[Tensor, "s f"]) -> Float64[Tensor, " n_atoms"]:
        """M⁻¹Cᵀλ."""
        rows = multiplier[self.constraints.batch].T
        return (self.response * rows).sum(0)


def _longest_waves(
    coulomb: CoulombSum, structure: int, atoms: Int64[Tensor, " n"]
) -> Float64[Tensor, "n n_waves"]:
    """Waves whose squares sum up to the long-range part of A; as many as the budget allows."""
    box = coulomb.box[structure]
    reciprocal = 2 * math.pi * torch.linalg.inv(box).T
    # Beyond this k a wave weighs less than the diagonal, whose inverse is of the order of 0.1.
    largest = math.sqrt(0.4 * math.pi * COULOMB_CONSTANT * len(atoms) / float(box.det().abs()))
    limit = min(int(largest * float(box.norm(dim=1).max()) / (2 * math.pi)), 6)
    steps = torch.arange(-limit, limit + 1, device=box.device)
    millers = torch.cartesian_prod(steps, steps, steps)
    millers = millers[len(millers) // 2 + 1 :]  # one of each ±k, without 0
    k = millers.to(box) @ reciprocal
    k_squared, order = (k * k).sum(1).sort()
    count = min(_MOST_WAVES, int((k_squared < largest**2).sum()))
    k, k_squared = k[order[:count]], k_squared[:count]
    phase = coulomb.graph.positions[atoms] @ k.T
    strength = (8 * math.pi * COULOMB_CONSTANT / float(box.det().abs()) / k_squared).sqrt()
    damping = torch.exp(-0.5 * coulomb.smearing[atoms, None] ** 2 * k_squared) * strength
    return torch.cat([torch.cos(phase) * damping, torch.sin(phase) * damping], dim=1)
