"""Settings of what training minimises: terms of the loss and penalties."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from phicalc.architecture import POISSON_HEADS
from phicalc.data.labels import LABELS


@dataclass(frozen=True)
class TermConfig:
    """Weight and form of one term of the loss (0 leaves the term out).

    Terms need not count from the first step to the last: charges alone from 0 to 0.2 of the run and
    energies and forces from there on make a training in two stages.
    """

    weight: float = 0.0
    kind: Literal["norm", "mse", "huber"] = "norm"
    """``norm``: mean length of the error vector; ``mse``: mean square; ``huber``: both."""
    delta: float = 0.1
    """Where ``huber`` turns from square to linear (in the term's own scaled unit)."""
    start: float = 0.0
    """Fraction of the run after which the term counts."""
    end: float = 1.0
    """Fraction of the run after which it counts no more."""
    final_weight: float | None = None
    """Weight at the end of the run (see `LossConfig.final_from`); by default `weight`."""
    required: bool = True
    """False admits frames without this label: its mean is over those of a batch that have it."""

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        for name in ("weight", "final_weight"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name!r} must be ≥ 0, got {getattr(self, name)}")
        if self.delta <= 0:
            raise ValueError(f"'delta' must be positive, got {self.delta}")
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(
                f"'start' and 'end' must be fractions of the run with start < end, got "
                f"{self.start} and {self.end}"
            )

    @property
    def used(self) -> bool:
        """Whether the term counts at any time of the run."""
        return self.weight > 0 or (self.final_weight or 0) > 0

    @property
    def changes(self) -> bool:
        """Whether the weight changes during the run."""
        return self.final_weight is not None or self.start > 0 or self.end < 1

    def at(self, progress: float, final: float) -> "TermConfig":
        """Return the term as it is at a moment of the run, for all times.

        `progress` of the run and `final` of the change to the final weight are done (0 to 1).
        """
        weight = self.weight
        if self.final_weight is not None:
            weight = (1 - final) * self.weight + final * self.final_weight
        counts = self.start <= progress < self.end or progress >= self.end == 1.0
        weight = weight if counts else 0.0
        return dataclasses.replace(self, weight=weight, start=0.0, end=1.0, final_weight=None)


@dataclass(frozen=True)
class LossConfig:
    """The loss: a sum of weighted terms (see `phicalc.training.loss` for their units).

    Terms with a ``final_weight`` change to it late in the run: first forces, whose errors say more
    about the weights of the network, then energies. Validation always uses the final weights, so
    that the best epoch is the best by one measure.
    """

    energy: TermConfig = TermConfig(weight=1.0)
    forces: TermConfig = TermConfig(weight=1.0)
    stress: TermConfig = TermConfig()
    charges: TermConfig = TermConfig()
    dipole: TermConfig = TermConfig()
    final_from: float = 0.75
    """Fraction of the run's steps after which terms change to their ``final_weight``."""
    final_over: float = 0.0
    """Fraction of the run that the change takes, linearly; 0 changes at once."""

    def __post_init__(self) -> None:
        """Refuse a loss without terms, now or later, and a change that does not fit the run."""
        terms = [getattr(self, name) for name in LABELS]
        if not any(term.used for term in terms):
            raise ValueError("every weight is 0; give at least one label a positive weight")
        if not (0 <= self.final_from < 1 and 0 <= self.final_over <= 1 - self.final_from):
            raise ValueError(
                "'final_from' and 'final_over' are fractions of the run, and their sum at most 1; "
                f"got {self.final_from} and {self.final_over}"
            )
        moments = {time for term in terms for time in (term.start, term.end)}
        # a little later than its end, so that the change is whole whatever rounding does
        moments |= {self.final_from, min(1.0, self.final_from + self.final_over + 1e-9)}
        for moment in sorted(moments, reverse=True):
            if not any(term.weight for term in self._terms_at(moment).values()):
                when = "at the end" if moment == 1 else f"after the fraction {moment:g}"
                raise ValueError(
                    f"no term of the loss counts {when} of the run; change 'start', 'end' or "
                    "'final_weight' of a term"
                )

    @property
    def changes(self) -> bool:
        """Whether any weight changes during the run."""
        return any(getattr(self, name).changes for name in LABELS)

    def at(self, progress: float) -> "LossConfig":
        """Return the loss at a moment of the run (`progress` 0 to 1), with constant weights."""
        if not self.changes:
            return self
        return dataclasses.replace(self, **self._terms_at(progress))

    def _terms_at(self, progress: float) -> dict[str, Any]:
        """Terms at a moment of the run."""
        final = float(progress >= self.final_from)
        if self.final_over > 0:
            final = min(1.0, max(0.0, (progress - self.final_from) / self.final_over))
        return {name: getattr(self, name).at(progress, final) for name in LABELS}


@dataclass(frozen=True)
class PenaltyConfig:
    """Weights of parts of the loss that need no labels (see `phicalc.training.penalties`)."""

    residual: float = 0.0
    """Of the mean square of what is left of Poisson's equation (Φ heads; zero by construction)."""
    net_charge: float = 0.0
    """Of the mean ``|Σρ − Q|`` (zero by construction wherever charges are to sum to Q)."""
    charges: float = 0.0
    """Of the mean square charge."""

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name!r} must be ≥ 0, got {getattr(self, field.name)}")

    def check_head(self, head: str) -> None:
        """Refuse penalties on what a head (`PotentialConfig.head`) does not have."""
        if head == "none" and (self.net_charge or self.charges):
            raise ValueError(
                "penalties.net_charge and penalties.charges need charges, but model.head is 'none'"
            )
        if self.residual and head not in POISSON_HEADS:
            raise ValueError(
                f"penalties.residual needs a head with Poisson's equation on the graph, got "
                f"model.head={head!r}"
            )


assert tuple(f.name for f in dataclasses.fields(LossConfig) if f.type is TermConfig) == LABELS
