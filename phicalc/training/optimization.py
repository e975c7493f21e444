"""Optimizer, learning rate by step, and the moving average of the weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from phicalc.training.config import OptimizerConfig, ScheduleConfig
from phicalc.training.soap import SOAP


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Make the optimizer; weight decay acts on weights of two or more dimensions only."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "soap": SOAP}
    return kinds[config.name]([group for group in groups if group["params"]], lr=config.lr)


class Schedule:
    """Learning rate as a function of the step, and for ``plateau`` of the validation history.

    Parameters
    ----------
    config
        Kind and parameters.
    lr
        The full learning rate.
    steps_per_epoch, max_epochs
        Length of the run.
    """

    def __init__(self, config: ScheduleConfig, lr: float, steps_per_epoch: int, max_epochs: int):
        self.config = config
        self.lr = lr
        self.warmup_steps = round(config.warmup_epochs * steps_per_epoch)
        self.n_steps = steps_per_epoch * max_epochs
        self.best = math.inf
        self.bad_epochs = 0
        self.reduction = 1.0

    def rate(self, step: int) -> float:
        """Learning rate of a step (the first step is 0)."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        if self.config.name == "cosine":
            return self.lr * self._cosine(step)
        return self.lr * self.reduction

    def _cosine(self, step: int) -> float:
        start = max(self.warmup_steps, round(self.config.hold * self.n_steps))
        if step <= start:
            return 1.0
        fraction = min(1.0, (step - start) / max(1, self.n_steps - 1 - start))
        floor = self.config.final
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * fraction))

    def observe(self, metric: float) -> None:
        """Take note of a validation result (it matters for ``plateau`` only)."""
        if metric < self.best:
            self.best, self.bad_epochs = metric, 0
            return
        self.bad_epochs += 1
        if self.config.name == "plateau" and self.bad_epochs >= self.config.patience:
            self.reduction = max(self.config.final, self.reduction * self.config.factor)
            self.bad_epochs = 0

    def state(self) -> dict[str, float | int | None]:
        """Return what `restore` needs."""
        best = None if math.isinf(self.best) else self.best
        return {"best": best, "bad_epochs": self.bad_epochs, "reduction": self.reduction}

    def restore(self, state: dict[str, float | int | None]) -> None:
        """Go back to a saved state."""
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.bad_epochs = int(state["bad_epochs"] or 0)
        self.reduction = float(state["reduction"] or 0.0)


class MovingAverage:
    """Exponential moving average of a model's weights.

    The decay rises from 0.1 over the first steps, ``min(decay, (1 + n) / (10 + n))``, so that the
    random initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.n_updates = 0
        self.model = model
        self.weights = {k: p.detach().clone() for k, p in model.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights."""
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        if self.decay == 0:
            decay = 0.0
        self.n_updates += 1
        averages = list(self.weights.values())
        present = [p.detach() for _, p in self.model.named_parameters()]
        torch._foreach_lerp_(averages, present, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the averaged weights inside the block (copied in place)."""
        present = {k: p.detach().clone() for k, p in self.model.named_parameters()}
        copy_weights(self.weights, self.model)
        try:
            yield
        finally:
            copy_weights(present, self.model)


@torch.no_grad()
def copy_weights(weights: dict[str, Shaped[Tensor, "..."]], model: nn.Module) -> None:
    """Copy named weights into a model's parameters, in place."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
