r"""Boundary conditions: boxes that are periodic along any axes, and the Coulomb kernel in them.

Fourier sums want a box that is periodic in all three directions. Along open axes the box gets an
edge of length L that is more than twice as long as the structure, and the interaction is cut off
beyond L/2: pairs then see each other as in open space, images along open axes do not see each
other, and nothing is approximate. The transform of ``1/r`` so truncated is ``4π/k² · f(k)`` with

- three periodic axes: f = 1, k = 0 left out (tin-foil boundary, uniform background);
- two: the kernel is cut at ``|z| = R``, ``f = 1 − cos(k_z R) exp(−k_∥ R)`` for ``R = L/2``;
- one: cut at the cylinder ``ρ = R``, ``f = 1 + k_⊥R J₁(k_⊥R) K₀(k_xR) − k_xR J₀(k_⊥R) K₁(k_xR)``;
- none: cut at the sphere ``r = R``, ``f = 1 − cos(kR)``.

Terms that are constant along the periodic axes (``k_∥ = 0``, ``k_x = 0``) are the potentials of
uniformly charged planes, ``−2π|z|/A``, and lines, ``−2 ln(ρ/1 Å)/L``. That fixes what the energy of
a charged slab or wire means here: a plane has the potential 0 at itself, a line at 1 Å from it.

References
----------
Rozzi et al., Phys. Rev. B 73, 205119 (2006).
"""

import math

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from phicalc.electrostatics.sums import bessel


def complete_box(
    cell: Float64[Tensor, "3 3"], pbc: Bool[Tensor, "3"], open_length: float
) -> Float64[Tensor, "3 3"]:
    """Replace the vectors of open axes by perpendicular ones of length `open_length` in Å.

    Differentiable: under a strain the new vectors turn with the plane or line they stand on, and
    keep their length.
    """
    periodic = [axis for axis in range(3) if bool(pbc[axis])]
    rows = [cell[axis] for axis in range(3)]
    open_axes = [axis for axis in range(3) if axis not in periodic]
    if len(periodic) == 2:
        directions = [torch.linalg.cross(rows[periodic[0]], rows[periodic[1]])]
    elif len(periodic) == 1:
        along = rows[periodic[0]] / rows[periodic[0]].norm()
        helper = torch.eye(3).to(cell)[int(along.detach().abs().argmin())]
        first = torch.linalg.cross(along, helper)
        directions = [first, torch.linalg.cross(along, first)]
    else:
        directions = list(torch.eye(3).to(cell)) if not periodic else []
    for axis, direction in zip(open_axes, directions, strict=True):
        rows[axis] = open_length * direction / direction.norm()
    return torch.stack(rows)


def truncation(
    millers: Int64[Tensor, "n_k 3"],
    k: Float[Tensor, "n_k 3"],
    pbc: Bool[Tensor, "3"],
    radius: float,
) -> Float[Tensor, " n_k"]:
    """Factor f of the truncated kernel, for boxes with open axes; meaningless where k = 0.

    Parameters
    ----------
    millers
        Integers of the k vectors along the edges of the box.
    k
        The k vectors in 1/Å.
    pbc
        Which edges of the box are periodic.
    radius
        R in Å, half the length of the box along every open axis.
    """
    n_periodic = int(pbc.sum())
    k = torch.where((millers != 0).any(1)[:, None], k, 1.0)  # keeps derivatives finite at k = 0
    k_squared = (k * k).sum(1)
    if n_periodic == 0:
        return 1 - torch.cos(k_squared.sqrt() * radius)
    uniform = (millers[:, pbc] == 0).all(1)  # along the periodic axes
    if n_periodic == 2:
        normal = int((~pbc).nonzero())
        sign = 1.0 - 2.0 * (millers[:, normal] % 2).to(k)  # cos(k_z L/2); the sine is 0
        k_z = 2 * math.pi * millers[:, normal].to(k) / (2 * radius)
        parallel = torch.where(uniform, 1.0, k_squared - k_z**2).sqrt()
        return 1 - sign * torch.where(uniform, 1.0, torch.exp(-parallel * radius))
    open_millers = millers[:, ~pbc].to(k)
    perpendicular = math.pi / radius * open_millers.norm(dim=1)
    along = torch.where(uniform, 1.0, k_squared - perpendicular**2).sqrt() * radius
    across = perpendicular * radius
    line = -across * math.log(radius) * bessel.j1(across) - bessel.j0(across)
    waves = across * bessel.j1(across) * bessel.k0(along)
    waves = waves - along * bessel.j0(across) * bessel.k1(along)
    return 1 + torch.where(uniform, line, waves)


def mean_interaction(n_periodic: int, radius: float) -> float:
    """Transform of the truncated ``1/r`` at k = 0 in Å² (the mean over the box, times its volume).

    Not defined in three dimensions, where the term is left out.
    """
    if n_periodic == 2:
        return -2 * math.pi * radius**2
    if n_periodic == 1:
        return -math.pi * radius**2 * (2 * math.log(radius) - 1)
    return 2 * math.pi * radius**2
