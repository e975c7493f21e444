"""Fourier sums on a mesh: charges spread by B-splines, the interaction applied by FFT.

The energy is a smooth function of positions, charges and box, and everything here can be
differentiated as often as wanted: forces are the exact derivatives of the mesh energy.

References
----------
Essmann et al., J. Chem. Phys. 103, 8577 (1995) (smooth PME); Hockney & Eastwood, Computer
Simulation Using Particles, McGraw-Hill 1981 (P3M).
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.autograd import Function

from phicalc.electrostatics import splines
from phicalc.electrostatics.boundary import truncation
from phicalc.units import COULOMB_CONSTANT


class MeshSum:
    """Long-range part of the interaction of the charges of one structure.

    Parameters
    ----------
    positions
        In Å, anywhere.
    box
        Edges as rows in Å, periodic in all three directions (`boundary.complete_box`).
    pbc
        Which of them are periodic in truth.
    shape, order
        Mesh points along each edge, and the order of the splines.
    splitting
        Ewald parameter α in 1/Å.
    """

    def __init__(
        self,
        positions: Float64[Tensor, "n 3"],
        box: Float64[Tensor, "3 3"],
        pbc: Bool[Tensor, "3"],
        shape: tuple[int, int, int],
        order: int,
        splitting: float,
    ):
        self.shape, self.order = shape, order
        points = torch.tensor(shape, dtype=box.dtype, device=box.device)
        scaled = (torch.linalg.inv(box) * points).T @ positions.T
        floor = scaled.detach().floor()
        self.offset = scaled - floor
        self.nodes = self._nodes(floor.long())
        self.influence = _influence(box, pbc, shape, order, splitting)
        self.ripple = self._ripple()

    def _nodes(self, floor: Int64[Tensor, "3 n"]) -> Int64[Tensor, " m"]:
        """Flat indices of the mesh points each charge is spread over."""
        steps = torch.arange(self.order, device=floor.device)[:, None]
        x, y, z = (torch.remainder(floor[i] - steps, size) for i, size in enumerate(self.shape))
        rows = (x * self.shape[1])[:, None] + y
        return ((rows * self.shape[2])[:, :, None] + z).reshape(-1)

    def shares(self, charges: Float[Tensor, " n"]) -> Float[Tensor, "p p p n"]:
        """Part of each charge that goes to each of its mesh points."""
        x, y, z = splines.spline_weights(self.offset, self.order).unbind(1)  # (p, n) each
        return ((charges * x)[:, None] * y)[:, :, None] * z

    def spread(self, charges: Float[Tensor, " n"]) -> Float[Tensor, "a b c"]:
        """Charge at every point of the mesh."""
        shares = self.shares(charges).reshape(-1)
        mesh = shares.new_zeros(math.prod(self.shape))
        return mesh.scatter_add(0, self.nodes, shares).reshape(self.shape)

    def gather(self, mesh: Float[Tensor, "a b c"]) -> Float[Tensor, " n"]:
        """Values of a function on the mesh at the charges (the transpose of `spread`)."""
        x, y, z = splines.spline_weights(self.offset, self.order).unbind(1)
        return _contract(_contract(_contract(self._near(mesh), x), y), z)

    def gather_slopes(self, mesh: Float[Tensor, "a b c"]) -> tuple[Tensor, Float[Tensor, "3 n"]]:
        """Values at the charges, and their derivatives with respect to `offset`."""
        x, y, z = splines.spline_weights(self.offset, self.order).unbind(1)
        dx, dy, dz = splines.spline_slopes(self.offset, self.order).unbind(1)
        near = self._near(mesh)
        planes = _contract(near, x)
        line = _contract(planes, y)
        along_x = _contract(_contract(_contract(near, dx), y), z)
        along_y = _contract(_contract(planes, dy), z)
        return _contract(line, z), torch.stack([along_x, along_y, _contract(line, dz)])

    def _near(self, mesh: Float[Tensor, "a b c"]) -> Float[Tensor, "p p p n"]:
        """Values at the mesh points of each charge."""
        near = mesh.reshape(-1).index_select(0, self.nodes)
        return near.reshape(self.order, self.order, self.order, -1)

    def potential(self, charges: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Long-range potential of the charges at the charges in eV/e."""
        felt = self.gather(self.smooth(torch.fft.rfftn(self.spread(charges))))
        return felt - self.ripple * charges

    def smooth(self, waves: Tensor) -> Float[Tensor, "a b c"]:
        """Potential on the mesh of charges on the mesh, given by their Fourier transform."""
        return torch.fft.irfftn(waves * self.influence, s=self.shape, norm="forward")

    def energy(self, charges: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Half of Σ q φ in eV; its derivatives cost less than those of `potential`."""
        energy = _MeshEnergy.apply(self, self.offset, charges, self.influence)
        return energy - 0.5 * (self.ripple * charges**2).sum()

    def _ripple(self) -> Float[Tensor, " n"]:
        """Interaction of a unit charge with itself, as far as it depends on the place in the mesh.

        Left in, it would be the largest error: a force that pulls every single charge to the mesh.
        """
        means, waves = (
            [
                torch.from_numpy(splines.overlap(points, self.order, h)).to(self.offset)
                for points in self.shape
            ]
            for h in (0, 1)
        )
        weight = self.multiplicity() * self.influence
        last = weight.shape[2]
        ripple = torch.zeros_like(self.offset[0])
        for axis in range(3):
            x, y, z = (waves[a] if a == axis else means[a] for a in range(3))
            height = ((weight @ z[:last]) @ y) @ x
            ripple = ripple + 2 * height * torch.cos(2 * math.pi * self.offset[axis])
        return ripple

    def multiplicity(self) -> Float[Tensor, " c"]:
        """2 for planes of k vectors whose mirror image the real transform leaves out, else 1."""
        count = self.influence.new_full((self.influence.shape[2],), 2.0)
        count[0] = 1.0
        count[-1] = 1.0  # the size of every mesh is even
        return count


class _MeshEnergy(Function):
    """``½ Σ_k G_k |S_k|²``, with a backward pass of one FFT that can itself be differentiated."""

    @staticmethod
    def forward(
        ctx: Any, mesh: MeshSum, offset: Tensor, charges: Tensor, influence: Tensor
    ) -> Tensor:
        waves = torch.fft.rfftn(mesh.spread(charges))
        ctx.mesh, ctx.waves = mesh, waves
        ctx.save_for_backward(charges)
        return 0.5 * _inner_product(waves, waves * influence)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        mesh = ctx.mesh
        (charges,) = ctx.saved_tensors
        again = torch.is_grad_enabled()  # the waves must then depend on everything
        waves = torch.fft.rfftn(mesh.spread(charges)) if again else ctx.waves
        felt, slopes = mesh.gather_slopes(mesh.smooth(waves))
        of_influence = None
        if ctx.needs_input_grad[3]:
            square = waves.real * waves.real + waves.imag * waves.imag
            of_influence = gradient * 0.5 * mesh.multiplicity() * square
        return None, gradient * charges * slopes, gradient * felt, of_influence


def _contract(
    values: Float[Tensor, "p ... n"], weights: Float[Tensor, "p n"]
) -> Float[Tensor, "... n"]:
    """Sum over the first axis with weights, without a product of the size of `values`."""
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = torch.addcmul(total, value, weight)
    return total


def _inner_product(first: Tensor, second: Tensor) -> Float[Tensor, ""]:
    """Sum of ``Re(a* b)`` over all k, from the half of them that real transforms keep."""
    half = torch.vdot(first.reshape(-1), second.reshape(-1)).real
    ends = ((first[..., plane], second[..., plane]) for plane in (0, -1))
    return 2 * half - sum(torch.vdot(a.reshape(-1), b.reshape(-1)).real for a, b in ends)


def _influence(
    box: Tensor, pbc: Tensor, shape: tuple[int, int, int], order: int, splitting: float
) -> Float64[Tensor, "a b c"]:
    """Interaction ``4π k_e exp(−k²/4α²)/k²V``, corrected for the splines; zero at k = 0."""
    device, (a, b, c) = box.device, shape
    integers = [(torch.arange(n, device=device) + n // 2) % n - n // 2 for n in (a, b)]
    integers.append(torch.arange(c // 2 + 1, device=device))
    k_squared = _squares(integers, 2 * math.pi * torch.linalg.inv(box).T)
    k_squared[0, 0, 0] = 1.0
    strength = 4 * math.pi * COULOMB_CONSTANT / torch.linalg.det(box).abs()
    weight = strength * torch.exp(k_squared * (-0.25 / splitting**2)) / k_squared
    corrections = [torch.from_numpy(splines.deconvolution(n, order)).to(box) for n in shape]
    x, y, z = corrections[0], corrections[1], corrections[2][: c // 2 + 1]
    weight = weight * (x[:, None] * y)[:, :, None] * z
    if not bool(pbc.all()):
        weight = weight * _truncation(box, pbc, integers)
    nonzero = torch.ones_like(weight)
    nonzero[0, 0, 0] = 0.0
    return weight * nonzero


def _squares(integers: list[Tensor], edges: Tensor) -> Float64[Tensor, "a b c"]:
    """k² for all combinations of integers along three reciprocal vectors."""
    metric = edges @ edges.T
    x, y, z = (n.to(edges) for n in integers)
    plane = metric[0, 0] * (x * x)[:, None] + 2 * metric[0, 1] * x[:, None] * y
    plane = plane + metric[1, 1] * (y * y)
    slope = 2 * (metric[0, 2] * x[:, None] + metric[1, 2] * y)
    return plane[:, :, None] + slope[:, :, None] * z + metric[2, 2] * (z * z)


def _truncation(box: Tensor, pbc: Tensor, integers: list[Tensor]) -> Float64[Tensor, "a b c"]:
    """Factors of the kernel that is cut off along open axes; arbitrary at k = 0."""
    millers = torch.stack(torch.meshgrid(*integers, indexing="ij"), dim=-1).reshape(-1, 3)
    k = millers.to(box) @ (2 * math.pi * torch.linalg.inv(box).T)
    radius = 0.5 * float(box.detach()[~pbc].norm(dim=1).max())
    return truncation(millers, k, pbc, radius).reshape([len(n) for n in integers])
