"""Events of a training run, in the order in which `Trainer.run` yields them."""

from typing import Any, NamedTuple

from phicalc.state import State


class Saved(NamedTuple):
    """The run has reached a state that is to be saved."""

    state: State


class Improved(NamedTuple):
    """A validation was the best so far; the potential has the weights that were validated."""

    metrics: dict[str, float]
    """Loss and errors of the validation set; empty without one."""


class EpochDone(NamedTuple):
    """An epoch is over."""

    row: dict[str, Any]
    """Losses and errors, in the units of `phicalc.training.loss.UNITS`; one line of the history."""
    stopped: bool
    """Whether the run ends because validation stopped improving."""


Event = Saved | Improved | EpochDone
