"""Building blocks against e3nn, and their symmetries and limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from phicalc import nn

o3 = pytest.importorskip("e3nn.o3", reason="e3nn is the oracle of these tests")

PATHS = nn.couplings(3, 3, 3)


def unit_vectors(n: int) -> torch.Tensor:
    vectors = torch.randn(n, 3, dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def wigner(matrix: torch.Tensor, l_max: int) -> torch.Tensor:
    """Matrix by which features turn when space is turned by `matrix`, from the harmonics alone."""
    points = unit_vectors(200)
    before = nn.spherical_harmonics(points, l_max)
    after = nn.spherical_harmonics(points @ matrix, l_max)
    return torch.linalg.lstsq(before, after).solution


def test_spherical_harmonics_are_those_of_e3nn() -> None:
    vectors = unit_vectors(50)
    # e3nn takes y as the polar axis: (y, z, x) there is (x, y, z) in the usual convention.
    reference = o3.spherical_harmonics([0, 1, 2, 3], vectors[:, [1, 2, 0]], True, "component")
    torch.testing.assert_close(nn.spherical_harmonics(vectors, 3), reference)


def test_spherical_harmonics_are_normalised_by_component() -> None:
    harmonics = nn.spherical_harmonics(unit_vectors(10), 3)
    for degree in range(4):
        squares = (harmonics[:, nn.block(degree)] ** 2).sum(dim=1)
        torch.testing.assert_close(squares, torch.full_like(squares, 2 * degree + 1))


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_couplings_are_those_of_e3nn(path: tuple[int, int, int]) -> None:
    table = torch.from_numpy(nn.coupling(*path))
    reference = o3.wigner_3j(*path, dtype=torch.float64) * math.sqrt(2 * path[2] + 1)
    sign = torch.sign((table * reference).sum())
    torch.testing.assert_close(table, sign * reference, rtol=0, atol=1e-12)


def test_couplings_leave_out_what_does_not_couple() -> None:
    assert len(PATHS) == 23
    for path in ((1, 1, 1), (0, 1, 2), (2, 2, 3), (4, 4, 0)):
        with pytest.raises(ValueError, match="no natural-parity coupling"):
            nn.coupling(*path)


@pytest.mark.parametrize(
    "module",
    [
        nn.EquivariantLinear(2, 4, 4),
        nn.Gate(2, 4),
    ],
    ids=lambda module: type(module).__name__,
)
def test_layers_are_equivariant(module: torch.nn.Module) -> None:
    module.double()
    turn = wigner(torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q, 2)
    features = torch.randn(5, 9, 4, dtype=torch.float64)
    turned = torch.einsum("nmc,mk->nkc", features, turn)
    expected = torch.einsum("nmc,mk->nkc", module(features), turn)
    torch.testing.assert_close(module(turned), expected)


def test_element_linear_uses_the_matrices_of_the_element() -> None:
    module = nn.ElementLinear(1, 3, 5, n_elements=2).double()
    features = torch.randn(4, 4, 3, dtype=torch.float64)
    element = torch.tensor([0, 1, 1, 0])
    result = module(features, element)
    weight = module.linear.weight.unflatten(2, (2, 5)) / math.sqrt(3)
    for atom in range(4):
        for component, degree in enumerate(nn.degrees(1)):
            expected = features[atom, component] @ weight[degree, :, element[atom]]
            torch.testing.assert_close(result[atom, component], expected)


def test_envelope_ends_smoothly() -> None:
    x = torch.tensor([0.0, 1.0 - 1e-9, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
    value = nn.envelope(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert value.detach().tolist() == pytest.approx([1, 0, 0, 0], abs=1e-12)
    assert slope.detach()[1:].tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    assert curvature[1:].tolist() == pytest.approx([0, 0, 0], abs=1e-5)


def test_radial_basis_is_of_order_one_and_ends_at_the_cutoff() -> None:
    basis = nn.RadialBasis(8, cutoff=4.0).double()
    lengths = torch.linspace(1.0, 4.0, 301, dtype=torch.float64)
    values = basis(lengths).detach()
    assert values[-1].abs().max() < 1e-12
    weights = lengths[:, None] ** 2
    mean_square = float((values**2 * weights).sum() / weights.sum() / 8)
    assert 0.2 < mean_square < 2.0


def test_mlp_maps_zero_to_zero_and_keeps_the_variance() -> None:
    mlp = nn.MLP(64, 64, 64, 64)
    assert mlp(torch.zeros(1, 64)).abs().max() == 0
    assert 0.5 < mlp(torch.randn(2000, 64)).var().item() < 2.0


def test_unit_component_variance_survives_a_coupling() -> None:
    rng = np.random.default_rng(0)
    for l1, l2, l3 in PATHS:
        first, second = rng.normal(size=(2, 20000, 7))
        table = nn.coupling(l1, l2, l3)
        coupled = np.einsum("na,nb,abc->nc", first[:, : 2 * l1 + 1], second[:, : 2 * l2 + 1], table)
        assert coupled.var() == pytest.approx(1.0, rel=0.05)
