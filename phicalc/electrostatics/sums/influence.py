"""The interaction as a mesh of Fourier components, corrected for the splines."""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from phicalc.electrostatics.sums import splines
from phicalc.electrostatics.sums.boundary import truncation

#: Fourier transform of the smooth part of an interaction, from k² in 1/Å² and α in 1/Å.
Transform = Callable[[Float64[Tensor, "..."], float], Float64[Tensor, "..."]]


def multiplicity(shape: tuple[int, int, int]) -> Float64[Tensor, " c"]:
    """2 for planes of k vectors whose mirror image the real transform leaves out, else 1."""
    count = torch.full((shape[2] // 2 + 1,), 2.0, dtype=torch.float64)
    count[0] = 1.0
    count[-1] = 1.0  # the size of every mesh is even
    return count


def interaction(
    box: Float64[Tensor, "3 3"],
    pbc: Bool[Tensor, "3"],
    shape: tuple[int, int, int],
    order: int,
    splitting: float,
    transform: Transform,
) -> tuple[Float64[Tensor, "a b c"], Float64[Tensor, "3"]]:
    """Influence function and heights of the ripple; of the last boxes they are remembered.

    A simulation at constant volume asks for the same ones at every step.
    """
    if box.requires_grad:
        influence = _influence(box, pbc, shape, order, splitting, transform)
        return influence, _ripple_heights(influence, shape, order)
    edges, axes = tuple(box.reshape(-1).tolist()), tuple(pbc.tolist())
    return _remembered_interaction(edges, axes, shape, order, splitting, transform, box.device)


@lru_cache(maxsize=4)
def _remembered_interaction(
    edges: tuple[float, ...],
    axes: tuple[bool, ...],
    shape: tuple[int, int, int],
    order: int,
    splitting: float,
    transform: Transform,
    device: torch.device,
) -> tuple[Float64[Tensor, "a b c"], Float64[Tensor, "3"]]:
    """`_interaction` of a box without derivatives, given by plain numbers."""
    box = torch.tensor(edges, dtype=torch.float64, device=device).reshape(3, 3)
    pbc = torch.tensor(axes, device=device)
    influence = _influence(box, pbc, shape, order, splitting, transform)
    return influence, _ripple_heights(influence, shape, order)


def _ripple_heights(
    influence: Float64[Tensor, "a b c"], shape: tuple[int, int, int], order: int
) -> Float64[Tensor, "3"]:
    """Interaction of a unit charge with itself, as far as it depends on its place in the mesh.

    It is ``Σ_a h_a cos(2π u_a)`` of the place u between the points; the three h are returned. Left
    in, it would be the largest error: a force that pulls every single charge to the mesh.
    """
    means, waves = (
        [torch.from_numpy(splines.overlap(points, order, h)).to(influence) for points in shape]
        for h in (0, 1)
    )
    weight = multiplicity(shape).to(influence) * influence
    last = weight.shape[2]
    heights = []
    for axis in range(3):
        x, y, z = (waves[a] if a == axis else means[a] for a in range(3))
        heights.append(2 * ((weight @ z[:last]) @ y) @ x)
    return torch.stack(heights)


def _influence(
    box: Float64[Tensor, "3 3"],
    pbc: Bool[Tensor, "3"],
    shape: tuple[int, int, int],
    order: int,
    splitting: float,
    transform: Transform,
) -> Float64[Tensor, "a b c"]:
    """Transform per volume of the box, corrected for the splines; zero at k = 0."""
    device, (a, b, c) = box.device, shape
    integers = [(torch.arange(n, device=device) + n // 2) % n - n // 2 for n in (a, b)]
    integers.append(torch.arange(c // 2 + 1, device=device))
    k_squared = _squares(integers, 2 * math.pi * torch.linalg.inv(box).T)
    k_squared[0, 0, 0] = 1.0
    weight = transform(k_squared, splitting) / torch.linalg.det(box).abs()
    corrections = [torch.from_numpy(splines.deconvolution(n, order)).to(box) for n in shape]
    x, y, z = corrections[0], corrections[1], corrections[2][: c // 2 + 1]
    weight = weight * (x[:, None] * y)[:, :, None] * z
    if not bool(pbc.all()):
        weight = weight * _truncation(box, pbc, integers)
    nonzero = torch.ones_like(weight)
    nonzero[0, 0, 0] = 0.0
    return weight * nonzero


def _squares(
    integers: list[Int64[Tensor, "_"]], edges: Float64[Tensor, "3 3"]
) -> Float64[Tensor, "a b c"]:
    """k² for all combinations of integers along three reciprocal vectors."""
    metric = edges @ edges.T
    x, y, z = (n.to(edges) for n in integers)
    plane = metric[0, 0] * (x * x)[:, None] + 2 * metric[0, 1] * x[:, None] * y
    plane = plane + metric[1, 1] * (y * y)
    slope = 2 * (metric[0, 2] * x[:, None] + metric[1, 2] * y)
    return plane[:, :, None] + slope[:, :, None] * z + metric[2, 2] * (z * z)


def _truncation(
    box: Float64[Tensor, "3 3"], pbc: Bool[Tensor, "3"], integers: list[Int64[Tensor, "_"]]
) -> Float64[Tensor, "a b c"]:
    """Factors of the kernel that is cut off along open axes; arbitrary at k = 0."""
    millers = torch.stack(torch.meshgrid(*integers, indexing="ij"), dim=-1).reshape(-1, 3)
    k = millers.to(box) @ (2 * math.pi * torch.linalg.inv(box).T)
    radius = 0.5 * float(box.detach()[~pbc].norm(dim=1).max())
    return truncation(millers, k, pbc, radius).reshape([len(n) for n in integers])
