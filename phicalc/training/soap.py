"""SOAP: Adam in the eigenvectors of Shampoo's preconditioner, for many small weight matrices.

A step of it takes as long as one of Adam, and it fits forces in a fraction of the steps
(`tests/benchmarks/RESULTS.md`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class SOAP(torch.optim.Optimizer):
    """Adam in the eigenvectors of the mean of ``G Gᵀ`` and ``Gᵀ G``, G being a weight's gradient.

    Weights of one dimension are rows; of more than two, the first ones count matrices that have
    nothing to do with each other (here: one for each degree or element). Matrices of one shape are
    worked on together. The first step takes a look at the gradient and changes nothing.

    Parameters
    ----------
    params
        Weights, or groups of them with settings of their own.
    lr
        Length of a step.
    betas
        Decay of the means of the gradient and of its square, and of the matrices above.
    eps
        Added to the root of the mean square.
    weight_decay
        Part of the weights taken off, times `lr`.
    interval
        Steps between updates of the eigenvectors (one iteration of a power method).

    References
    ----------
    Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, arXiv:2409.11321.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        interval: int = 10,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "interval": interval})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the weights."""
        assert closure is None, "the gradients are to be there already"
        for group in self.param_groups:
            for weights in _of_one_shape(group["params"]):
                if any(weight.grad is not None for weight in weights):
                    self._change(weights, group)

    def _change(self, weights: list[Float[Tensor, "..."]], group: dict[str, Any]) -> None:
        """Make one step with weights of one shape; the first of them has the state of all."""
        gradient = torch.cat([_as_matrices(_gradient(weight)) for weight in weights])
        state = self.state[weights[0]]
        if not state:
            self._begin(state, gradient)
            return
        state["step"] += 1
        count, (beta1, beta2) = float(state["step"]), group["betas"]
        left, right = state["left"], state["right"]
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].lerp_((left.mT @ gradient @ right).square(), 1 - beta2)
        size = (state["square"] / (1 - beta2**count)).sqrt() + group["eps"]
        rotated = left.mT @ state["mean"] @ right / (1 - beta1**count) / size
        changes = (left @ rotated @ right.mT).split([len(_as_matrices(w)) for w in weights])
        for weight, change in zip(weights, changes, strict=True):
            if weight.grad is not None:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(change.reshape(weight.shape), alpha=group["lr"])
        state["rows"].lerp_(gradient @ gradient.mT, 1 - beta2)
        state["columns"].lerp_(gradient.mT @ gradient, 1 - beta2)
        if count % group["interval"] == 0:
            self._turn(state)

    @staticmethod
    def _begin(state: dict[str, Any], gradient: Float[Tensor, "count rows columns"]) -> None:
        """Start the state from the first gradient."""
        state["step"] = torch.tensor(0.0)
        state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["rows"], state["columns"] = gradient @ gradient.mT, gradient.mT @ gradient
        for side, name in (("left", "rows"), ("right", "columns")):
            state[side] = torch.linalg.eigh(state[name])[1].flip(-1).contiguous()

    @staticmethod
    def _turn(state: dict[str, Any]) -> None:
        """Improve the eigenvectors; mean squares stay with those that they belong to."""
        for side, name, dim in (("left", "rows", -2), ("right", "columns", -1)):
            image = state[name] @ state[side]
            order = (state[side] * image).sum(-2).argsort(dim=-1, descending=True)
            image = image.gather(-1, order[:, None].expand_as(image))
            # As it comes back from a file: products of another layout round differently.
            state[side] = torch.linalg.qr(image)[0].contiguous()
            index = order[:, :, None] if dim == -2 else order[:, None, :]
            square = state["square"]
            state["square"] = square.gather(dim, index.expand_as(square))


def _gradient(weight: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Gradient of a weight, zero where it has none in this step."""
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _as_matrices(weight: Float[Tensor, "..."]) -> Float[Tensor, "count rows columns"]:
    """View a weight as matrices."""
    return weight.reshape(-1, *weight.shape[-2:]) if weight.ndim > 1 else weight.reshape(1, 1, -1)


def _of_one_shape(
    weights: Iterable[Float[Tensor, "..."]],
) -> Iterator[list[Float[Tensor, "..."]]]:
    """Weights whose matrices have one shape, together."""
    buckets: dict[tuple[int, ...], list[Tensor]] = {}
    for weight in weights:
        if weight.numel():
            buckets.setdefault(tuple(_as_matrices(weight).shape[1:]), []).append(weight)
    yield from buckets.values()
