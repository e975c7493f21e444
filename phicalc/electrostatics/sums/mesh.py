"""Fourier sums on a mesh: charges spread by B-splines, the interaction applied by FFT.

The energy is a smooth function of positions, charges and box, and everything here can be
differentiated as often as wanted: forces are the exact derivatives of the mesh energy.

References
----------
Essmann et al., J. Chem. Phys. 103, 8577 (1995) (smooth PME); Hockney & Eastwood, Computer
Simulation Using Particles, McGraw-Hill 1981 (P3M).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Complex, Float, Float64, Int64
from torch import Tensor
from torch.autograd import Function

from phicalc.electrostatics.sums import kernels, splines
from phicalc.electrostatics.sums.influence import Transform, interaction, multiplicity

#: Their shares in the mesh, p³ each, then stay in a cache of a few megabytes.
_ATOMS_AT_A_TIME = 1024


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
    transform
        Of the smooth part of the interaction; by default that of unit charges.
    """

    def __init__(
        self,
        positions: Float64[Tensor, "n 3"],
        box: Float64[Tensor, "3 3"],
        pbc: Bool[Tensor, "3"],
        shape: tuple[int, int, int],
        order: int,
        splitting: float,
        transform: Transform = kernels.transform,
    ):
        self.shape, self.order = shape, order
        points = torch.tensor(shape, dtype=box.dtype, device=box.device)
        scaled = (torch.linalg.inv(box) * points).T @ positions.T
        floor = scaled.detach().floor()
        self.offset, self.floor = scaled - floor, floor.long()
        self.influence, heights = interaction(box, pbc, shape, order, splitting, transform)
        self.ripple = heights @ torch.cos(2 * math.pi * self.offset)
        # Needed several times; those of all atoms would fill the memory.
        self.first_nodes = self._nodes(slice(0, _ATOMS_AT_A_TIME))

    def parts(self) -> Iterator[tuple[slice, Int64[Tensor, " m"]]]:
        """Atoms, so few at a time that they fit a cache, and the nodes they are spread over."""
        for start in range(0, self.floor.shape[1], _ATOMS_AT_A_TIME):
            atoms = slice(start, start + _ATOMS_AT_A_TIME)
            yield atoms, self._nodes(atoms) if start else self.first_nodes

    def _nodes(self, atoms: slice) -> Int64[Tensor, " m"]:
        """Nodes that some atoms are spread over, (p, p, p, n) flattened."""
        steps = torch.arange(self.order, device=self.floor.device)[:, None]
        x, y, z = (
            torch.remainder(self.floor[axis, atoms] - steps, size)
            for axis, size in enumerate(self.shape)
        )
        rows = (x * self.shape[1])[:, None] + y
        return ((rows * self.shape[2])[:, :, None] + z).reshape(-1)

    def shares(
        self, charges: Float[Tensor, " n"]
    ) -> Iterator[tuple[Int64[Tensor, " m"], Float[Tensor, " m"]]]:
        """Yield nodes and the charge in e that each atom gives to them, (p, p, p, n) flattened."""
        weights = splines.spline_weights(self.offset, self.order)
        for atoms, nodes in self.parts():
            x, y, z = weights[:, :, atoms].unbind(1)  # (p, n) each
            yield nodes, (((charges[atoms] * x)[:, None] * y)[:, :, None] * z).reshape(-1)

    def spread(self, charges: Float[Tensor, " n"]) -> Float[Tensor, "a b c"]:
        """Return the charge in e at every point of the mesh, for charges in e."""
        return _Spread.apply(self, self.offset, charges)

    def smooth(self, mesh: Float[Tensor, "a b c"]) -> Float[Tensor, "a b c"]:
        """Return the potential in eV/e on the mesh of charges in e on the mesh."""
        return _Smooth.apply(self, mesh, self.influence)

    def gather(self, mesh: Float[Tensor, "a b c"]) -> Float[Tensor, " n"]:
        """Values of a function on the mesh at the charges (the transpose of `spread`)."""
        return _Gather.apply(self, self.offset, mesh)

    def gather_slopes(
        self, mesh: Float[Tensor, "a b c"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "3 n"]]:
        """Values at the charges, and their derivatives with respect to `offset`."""
        weights = splines.spline_weights(self.offset, self.order)
        slopes = splines.spline_slopes(self.offset, self.order)
        points, felt = mesh.reshape(-1), []
        for atoms, nodes in self.parts():
            x, y, z = weights[:, :, atoms].unbind(1)
            dx, dy, dz = slopes[:, :, atoms].unbind(1)
            near = self.near(points, nodes)
            planes = _contract(near, x)
            line = _contract(planes, y)
            along_x = _contract(_contract(_contract(near, dx), y), z)
            along_y = _contract(_contract(planes, dy), z)
            felt.append(torch.stack([_contract(line, z), along_x, along_y, _contract(line, dz)]))
        values = torch.cat(felt, dim=1)
        return values[0], values[1:]

    def near(
        self, points: Float[Tensor, " n_points"], nodes: Int64[Tensor, " k"]
    ) -> Float[Tensor, "p p p m"]:
        """Values of a flat mesh at the nodes of some charges."""
        return points.index_select(0, nodes).reshape(*[self.order] * 3, -1)

    def potential(self, charges: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Long-range potential of the charges at the charges in eV/e."""
        return self.gather(self.smooth(self.spread(charges))) - self.ripple * charges

    def energy(self, charges: Float[Tensor, " n"]) -> tuple[Float[Tensor, ""], Float[Tensor, " n"]]:
        """Half of Σ q φ in eV, and φ in eV/e as a constant.

        Derivatives of the energy cost less than those of `potential`.
        """
        energy, mesh = _Energy.apply(self, self.spread(charges), self.influence)
        energy = energy - 0.5 * (self.ripple * charges**2).sum()
        with torch.no_grad():
            return energy, self.gather(mesh) - self.ripple * charges


class _Spread(Function):
    """Charges and their places → mesh."""

    @staticmethod
    def forward(
        ctx: Any, mesh: MeshSum, offset: Float[Tensor, "3 n"], charges: Float[Tensor, " n"]
    ) -> Float[Tensor, "a b c"]:
        ctx.mesh = mesh
        ctx.save_for_backward(charges)
        points = charges.new_zeros(math.prod(mesh.shape))
        for nodes, shares in mesh.shares(charges):
            points.scatter_add_(0, nodes, shares)
        return points.reshape(mesh.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "a b c"]) -> tuple[Any, ...]:
        (charges,) = ctx.saved_tensors
        values, slopes = ctx.mesh.gather_slopes(gradient)
        return None, charges * slopes, values


class _Gather(Function):
    """Mesh → values at the charges: the transpose of `_Spread`."""

    @staticmethod
    def forward(
        ctx: Any, mesh: MeshSum, offset: Float[Tensor, "3 n"], points: Float[Tensor, "a b c"]
    ) -> Float[Tensor, " n"]:
        ctx.mesh = mesh
        ctx.save_for_backward(points)
        weights = splines.spline_weights(mesh.offset, mesh.order)
        flat, values = points.reshape(-1), []
        for atoms, nodes in mesh.parts():
            x, y, z = weights[:, :, atoms].unbind(1)
            values.append(_contract(_contract(_contract(mesh.near(flat, nodes), x), y), z))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, " n"]) -> tuple[Any, ...]:
        (points,) = ctx.saved_tensors
        slopes = ctx.mesh.gather_slopes(points)[1] if ctx.needs_input_grad[1] else None
        of_offset = None if slopes is None else gradient * slopes
        return None, of_offset, ctx.mesh.spread(gradient)


class _Smooth(Function):
    """Convolution with the interaction, which is its own transpose."""

    @staticmethod
    def forward(
        ctx: Any, mesh: MeshSum, points: Float[Tensor, "a b c"], influence: Float64[Tensor, "a b h"]
    ) -> Float[Tensor, "a b c"]:
        ctx.mesh = mesh
        ctx.save_for_backward(points)
        return _convolve(points, influence)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "a b c"]) -> tuple[Any, ...]:
        (points,) = ctx.saved_tensors
        of_influence = None
        if ctx.needs_input_grad[2]:
            of_influence = _products(torch.fft.rfftn(points), torch.fft.rfftn(gradient), ctx.mesh)
        return None, ctx.mesh.smooth(gradient), of_influence


class _Energy(Function):
    """``½ Σ_k G_k |S_k|²`` of charges on the mesh, and their potential: the gradient of it."""

    @staticmethod
    def forward(
        ctx: Any, mesh: MeshSum, points: Float[Tensor, "a b c"], influence: Float64[Tensor, "a b h"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "a b c"]]:
        ctx.mesh = mesh
        ctx.potential = _convolve(points, influence)
        ctx.save_for_backward(points)
        ctx.mark_non_differentiable(ctx.potential)
        return 0.5 * torch.dot(points.reshape(-1), ctx.potential.reshape(-1)), ctx.potential

    @staticmethod
    def backward(
        ctx: Any, gradient: Float[Tensor, ""], _: Float[Tensor, "a b c"]
    ) -> tuple[Any, ...]:
        (points,) = ctx.saved_tensors
        # A gradient that is to be differentiated must depend on the charges.
        potential = ctx.mesh.smooth(points) if torch.is_grad_enabled() else ctx.potential
        of_influence = None
        if ctx.needs_input_grad[2]:
            waves = torch.fft.rfftn(points)
            of_influence = 0.5 * gradient * _products(waves, waves, ctx.mesh)
        return None, gradient * potential, of_influence


def _convolve(
    points: Float[Tensor, "a b c"], influence: Float64[Tensor, "a b h"]
) -> Float[Tensor, "a b c"]:
    """Multiply by the influence function in Fourier space."""
    waves = torch.fft.rfftn(points) * influence
    return torch.fft.irfftn(waves, s=points.shape, norm="forward")


def _products(
    first: Complex[Tensor, "a b h"], second: Complex[Tensor, "a b h"], mesh: MeshSum
) -> Float[Tensor, "a b h"]:
    """``Re(a* b)`` of two transforms, with the waves that real transforms leave out."""
    product = first.real * second.real + first.imag * second.imag
    return multiplicity(mesh.shape).to(product) * product


def _contract(
    values: Float[Tensor, "p ... n"], weights: Float[Tensor, "p n"]
) -> Float[Tensor, "... n"]:
    """Sum over the first axis with weights, without a product of the size of `values`."""
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = torch.addcmul(total, value, weight)
    return total
