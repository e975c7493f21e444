"""Force errors of meshes against their estimates: `make bench ARGS="-k mesh_error"`.

The numbers 1.2 and c_p of `phicalc.electrostatics.sums.accuracy` come from this table.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from phicalc.electrostatics.sums import accuracy
from phicalc.electrostatics.sums.mesh import MeshSum

EDGE = 16.0
#: Splitting in 1/Å and points along an edge: hα = 0.3, 0.15, 0.6, 0.3.
MESHES = ((0.3, 16), (0.3, 32), (0.6, 16), (0.6, 32))


def forces(positions: Tensor, charges: Tensor, points: int, order: int, splitting: float) -> Tensor:
    positions = positions.clone().requires_grad_()
    box = EDGE * torch.eye(3, dtype=torch.float64)
    periodic, shape = torch.ones(3, dtype=torch.bool), (points, points, points)
    energy = MeshSum(positions, box, periodic, shape, order, splitting).energy(charges)
    return -torch.autograd.grad(energy, positions)[0]


def measured(n_atoms: int, order: int, splitting: float, points: int) -> float:
    """Root mean square force error of unit charges at random places."""
    generator = torch.Generator().manual_seed(0)
    squares = []
    for _ in range(max(1, 40 // n_atoms)):
        positions = EDGE * torch.rand(n_atoms, 3, generator=generator, dtype=torch.float64)
        charges = torch.randn(n_atoms, generator=generator, dtype=torch.float64).sign()
        found = forces(positions, charges, points, order, splitting)
        exact = torch.zeros_like(found)  # a charge alone feels nothing
        if n_atoms > 1:
            exact = forces(positions, charges, 96, 7, splitting)
        squares.append((found - exact).square().sum(1))
    return math.sqrt(float(torch.cat(squares).mean()))


@pytest.mark.parametrize("n_atoms", [1, 20, 200])
def test_mesh_error(n_atoms: int) -> None:
    print(f"\n{n_atoms} charges of 1 e in a cube of {EDGE:g} Å: measured / estimated force error")
    ions = accuracy.Ions(n_atoms, min(EDGE**3, 25.0 * n_atoms), 1.0, 1e-3, 0.0)
    if n_atoms > 20:
        ions = ions._replace(volume=EDGE**3)
    for order in accuracy.ORDERS:
        ratios = []
        for splitting, points in MESHES:
            error = measured(n_atoms, order, splitting, points)
            ratios.append(error / accuracy.mesh_error(ions, splitting, EDGE / points, order))
            print(f"  order {order}  hα {splitting * EDGE / points:.2f}  {error:.2e} eV/Å"
                  f"  ratio {ratios[-1]:.2f}")  # fmt: skip
        assert max(ratios) < 3.0
