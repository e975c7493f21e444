"""Where a training run stands, and how its progress is told to people."""

from dataclasses import dataclass, field
from typing import Any

from phicalc.data.labels import LABELS
from phicalc.training.loss import UNITS


@dataclass
class Position:
    """Where a run stands."""

    epoch: int = 0
    """Epochs finished."""
    batch: int = 0
    """Batches finished in the present epoch."""
    step: int = 0
    """Steps taken in all."""
    best_loss: float | None = None
    best_epoch: int = 0
    bad_validations: int = 0
    """Validations since the best one."""
    finished: bool = False
    seconds: float = 0.0
    """Time spent, over all continuations."""
    loss_sum: float = 0.0
    """Sum of the losses of the present epoch, weighted by structures."""
    structures: int = 0
    """Structures seen in the present epoch."""
    error_sums: dict[str, list[float]] = field(default_factory=dict)
    """Error statistics of the present epoch."""


def describe_epoch(row: dict[str, Any], max_epochs: int, position: Position) -> str:
    """One line about an epoch for people."""
    parts = [f"epoch {row['epoch']}/{max_epochs}", f"lr {row['lr']:.1e}"]
    for role in ("train", "valid"):
        if f"{role}_loss" in row:
            parts.append(f"{role} loss {row[f'{role}_loss']:.4f}")
            shown = [n for n in LABELS if f"{role}_{n}_rmse" in row]
            parts += [f"{n} {row[f'{role}_{n}_rmse']:.2f} {UNITS[n][1]}" for n in shown]
    parts.append(f"{position.seconds:.0f} s{' *' if position.best_epoch == row['epoch'] else ''}")
    return "  ".join(parts)
