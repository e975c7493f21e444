"""Solutions of linear systems, and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from phicalc.linear import (
    DenseSolver,
    NotPositiveError,
    System,
    conjugate_gradients,
    differentiable,
    refine,
)


def matrices(seed: int, positive: bool) -> Tensor:
    """Two matrices of four rows."""
    raw = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(seed)).double()
    raw = raw @ raw.transpose(1, 2) if positive else raw
    return raw + 2 * torch.eye(4)


def right_sides(seed: int) -> Tensor:
    return torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)).double()


def blocks(matrix: Tensor) -> System:
    """Rows of all matrices laid end to end, as atoms of a batch are."""
    return System(
        apply=lambda x: torch.einsum("sij,sj->si", matrix, x.reshape(2, 4)).reshape(-1),
        precondition=lambda r: (r, r / matrix.diagonal(dim1=1, dim2=2).reshape(-1)),
        total=lambda x: x.reshape(2, 4).sum(1),
        spread=lambda x: x.repeat_interleave(4),
    )


def iterate(matrix: Tensor, right: Tensor, **options: object) -> tuple[Tensor, int]:
    small = lambda r: r.reshape(2, 4).abs().amax(1) <= 1e-12  # noqa: E731
    options = {"max_iterations": 50, **options}
    return conjugate_gradients(blocks(matrix), right.reshape(-1), None, small, **options)


def test_iterations_solve_every_block() -> None:
    matrix, right = matrices(1, positive=True), right_sides(2)
    found, iterations = iterate(matrix, right)
    exact = torch.linalg.solve(matrix, right[..., None]).reshape(-1)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-11)
    assert 0 < iterations < 20


def test_a_good_start_needs_no_iteration() -> None:
    matrix, right = matrices(1, positive=True), right_sides(2)
    exact = torch.linalg.solve(matrix, right[..., None]).reshape(-1)
    small = lambda r: r.reshape(2, 4).abs().amax(1) <= 1e-9  # noqa: E731
    found, iterations = conjugate_gradients(blocks(matrix), right.reshape(-1), exact, small, 50)
    assert iterations == 0
    assert torch.equal(found, exact)


def test_iterations_that_do_not_end_are_an_error() -> None:
    matrix, right = matrices(1, positive=True), right_sides(2)
    with pytest.raises(np.linalg.LinAlgError, match="no convergence in 1 iterations"):
        iterate(matrix, right, max_iterations=1)
    with pytest.raises(np.linalg.LinAlgError, match="no convergence"):
        iterate(matrix, right * torch.nan)


def test_a_matrix_that_is_not_positive_is_refused() -> None:
    matrix = matrices(1, positive=True)
    matrix[1] -= 10 * torch.eye(4)
    with pytest.raises(NotPositiveError, match="not positive"):
        iterate(matrix, right_sides(2), check_curvature=True)


@pytest.mark.parametrize("positive", [True, False])
def test_dense_solutions_have_all_derivatives(positive: bool) -> None:
    matrix, right = matrices(3, positive), right_sides(4).requires_grad_()
    solver = DenseSolver(matrix, positive)
    exact = torch.linalg.solve(matrix, right[..., None]).squeeze(-1)
    torch.testing.assert_close(solver(right), exact)
    torch.testing.assert_close(solver(right.detach()), exact.detach())
    assert torch.autograd.gradcheck(solver, right)
    assert torch.autograd.gradgradcheck(lambda b: solver(b**2), right)


def test_positive_solver_marks_a_matrix_that_is_not() -> None:
    matrix = matrices(3, positive=True)
    matrix[1] -= 10 * torch.eye(4)
    found = DenseSolver(matrix, positive=True)(right_sides(4))
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


def test_solutions_of_unsymmetric_systems_have_all_derivatives() -> None:
    matrix = matrices(5, positive=False)

    def solve(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(torch.linalg.solve(matrix, torch.stack([first, second])[..., None])[..., 0])

    def adjoint(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        right = torch.stack([first, second])[..., None]
        return tuple(torch.linalg.solve(matrix.transpose(1, 2), right)[..., 0])

    solver = differentiable(solve, adjoint)
    inputs = tuple(x.clone().requires_grad_() for x in right_sides(6))
    assert torch.autograd.gradcheck(solver, inputs)
    assert torch.autograd.gradgradcheck(lambda a, b: solver(a**2, a * b), inputs)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(differentiable(solve), inputs)  # takes it for symmetric


def test_each_step_makes_one_more_derivative_exact() -> None:
    base, slope = matrices(7, positive=False)
    right, weights = right_sides(8)

    def derivatives(exact: bool, steps: int) -> list[float]:
        x = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        matrix, b = base + x * slope, right * torch.cos(x)
        if exact:
            value = weights @ torch.linalg.solve(matrix, b)
        else:
            value = weights @ refine(DenseSolver(matrix), (b,), lambda s: (b - matrix @ s,), steps)
        found = [value.item()]
        while value.requires_grad and len(found) < 4:
            (value,) = torch.autograd.grad(value, x, create_graph=True)
            found.append(value.item())
        return found

    expected = derivatives(True, 0)
    assert derivatives(False, 0) == pytest.approx(expected[:1])
    for steps in (1, 2):
        found = derivatives(False, steps)
        assert found[: steps + 1] == pytest.approx(expected[: steps + 1], rel=1e-9)
        assert found[steps + 1] != pytest.approx(expected[steps + 1], rel=1e-3)
