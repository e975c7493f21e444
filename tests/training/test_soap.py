"""SOAP: what it does to simple problems, to groups of weights, and to a state that is put back."""

import pytest
import torch
from torch import nn

from phicalc.training.config import OptimizerConfig
from phicalc.training.optimization import make_optimizer
from phicalc.training.packing import pack_optimizer, unpack_optimizer
from phicalc.training.soap import SOAP


def valley(weight: torch.Tensor) -> torch.Tensor:
    """Take a quadratic that is 10⁴ times steeper along some mixtures of rows and columns."""
    generator = torch.Generator().manual_seed(0)
    rotate = [
        torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
        for n in weight.shape
    ]
    steep = [torch.logspace(-1, 1, n, dtype=torch.float64) for n in weight.shape]
    rotated = rotate[0] @ weight @ rotate[1]
    return (steep[0][:, None] * steep[1] * rotated).square().sum()


def descended(kind: type[torch.optim.Optimizer], steps: int = 300) -> float:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(8, 6, generator=generator, dtype=torch.float64).requires_grad_()
    optimizer = kind([weight], lr=0.05)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        optimizer.zero_grad()
        valley(weight).backward()
        optimizer.step()
    return float(valley(weight).detach())


def test_it_sees_through_rotations():
    assert descended(SOAP) < 1e-3 * descended(torch.optim.Adam)


def random_steps(weights: list[nn.Parameter], optimizer: SOAP, seed: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        optimizer.step()


def make_weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(5)
    shapes = [(4, 3), (2, 4, 3), (3,), (1, 4, 3), (3, 1), (0, 3)]
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for shape in shapes
    ]


def test_weights_do_not_see_each_other():
    together, alone = make_weights(), make_weights()
    random_steps(together, SOAP(together), 3, 25)
    random_steps(alone, _Each(alone), 3, 25)
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


class _Each:
    """An optimizer for each matrix."""

    def __init__(self, weights: list[nn.Parameter]):
        self.weights = weights
        self.parts = [
            [nn.Parameter(part) for part in weight.detach().reshape(-1, *weight.shape[-2:])]
            if weight.ndim > 2
            else [weight]
            for weight in weights
        ]
        self.optimizers = [SOAP([part]) for parts in self.parts for part in parts]

    def step(self) -> None:
        for weight, parts in zip(self.weights, self.parts, strict=True):
            grads = (
                weight.grad.reshape(-1, *weight.shape[-2:]) if weight.ndim > 2 else [weight.grad]
            )
            for part, grad in zip(parts, grads, strict=True):
                part.grad = grad
        for optimizer in self.optimizers:
            optimizer.step()
        for weight, parts in zip(self.weights, self.parts, strict=True):
            if weight.ndim > 2:
                with torch.no_grad():
                    weight.copy_(torch.stack(list(parts)))


def test_first_step_changes_nothing_and_second_by_the_rate():
    weight = nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
    optimizer = SOAP([weight], lr=0.1)
    random_steps([weight], optimizer, 0, 1)
    assert not weight.any()
    gradient = weight.grad.clone()
    optimizer.step()
    # In the eigenvectors of one gradient only its singular values are there: ± lr each.
    assert torch.linalg.svdvals(weight).tolist() == pytest.approx([0.1] * 3)
    assert float((weight * gradient).detach().sum()) < 0


def test_state_continues_exactly():
    straight, broken = make_weights(), make_weights()
    whole, first = SOAP(straight), SOAP(broken)
    random_steps(straight, whole, 7, 13)
    random_steps(broken, first, 7, 13)
    second = SOAP(broken)
    unpack_optimizer(second, *pack_optimizer(first))
    random_steps(straight, whole, 8, 24)
    random_steps(broken, second, 8, 24)
    for one, other in zip(straight, broken, strict=True):
        assert torch.equal(one, other)


def test_state_has_the_layout_that_a_file_gives_back():
    """Products of matrices that lie in memory by columns round differently on some processors."""
    weights = make_weights()
    optimizer = SOAP(weights)
    random_steps(weights, optimizer, 7, 13)
    tensors, _ = pack_optimizer(optimizer)
    assert tensors
    assert all(tensor.is_contiguous() for tensor in tensors.values())


def test_weights_without_gradient_stay():
    weights = make_weights()
    optimizer = SOAP(weights, weight_decay=0.1)
    before = weights[1].detach().clone()
    for _ in range(15):
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        weights[1].grad = None
        optimizer.step()
    assert torch.equal(weights[1], before)
    weights[1].grad = torch.ones_like(weights[1])
    optimizer.step()
    assert torch.isfinite(weights[1]).all()
    assert not torch.equal(weights[1], before)


def test_settings_reach_it():
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, OptimizerConfig("soap", lr=0.02, weight_decay=0.1))
    assert isinstance(optimizer, SOAP)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert optimizer.param_groups[0]["lr"] == 0.02
