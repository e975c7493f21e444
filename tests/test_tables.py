"""Tables of radial functions against the networks they stand for."""

from __future__ import annotations

import pytest
import torch

from phicalc.backbone.tables import RadialTable
from phicalc.nn import MLP, RadialBasis

CUTOFF = 4.0


@pytest.fixture
def functions() -> tuple[RadialBasis, MLP]:
    basis, radial = RadialBasis(8, CUTOFF), MLP(8, 32, 24)
    return basis.requires_grad_(False), radial.requires_grad_(False)


def distances() -> torch.Tensor:
    ends = torch.tensor([0.05, CUTOFF - 1e-9, CUTOFF], dtype=torch.float64)
    return torch.cat([ends, 0.4 + 3.6 * torch.rand(397).double()]).reshape(20, 20)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-8)])
def test_tables_have_the_values_and_slopes_of_the_network(functions, dtype, tolerance) -> None:
    basis, radial = (module.to(dtype) for module in functions)
    table = RadialTable(basis, radial)
    r = distances().requires_grad_()
    values = table(r)
    assert values.dtype == dtype
    exact = r.detach().clone().requires_grad_()
    expected = radial.double()(basis.double()(exact.reshape(-1))).reshape(20, 20, -1)
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=tolerance * scale)
    weights = torch.randn(24, dtype=torch.float64)
    (slope,) = torch.autograd.grad((values.double() * weights).sum(), r)
    (expected_slope,) = torch.autograd.grad((expected * weights).sum(), exact)
    scale = float(expected_slope.abs().max())
    # Slopes of cubics converge one order more slowly.
    torch.testing.assert_close(slope, expected_slope, rtol=0, atol=5 * max(tolerance, 1e-6) * scale)


def test_slopes_are_those_of_the_table(functions) -> None:
    basis, radial = (module.double() for module in functions)
    table = RadialTable(basis, radial)
    r = distances()[2:4].requires_grad_()
    assert torch.autograd.gradcheck(table, (r,), eps=1e-7, atol=1e-5)


def test_tables_end_at_the_cutoff(functions) -> None:
    table = RadialTable(*functions)
    assert float(table(torch.full((1, 1), CUTOFF).double()).abs().max()) < 1e-6


def test_second_derivatives_are_refused(functions) -> None:
    table = RadialTable(*functions)
    r = distances().requires_grad_()
    (slope,) = torch.autograd.grad(table(r).sum(), r, create_graph=True)
    assert not slope.requires_grad
