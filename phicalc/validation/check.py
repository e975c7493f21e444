"""What a check is: a name, where it applies, and what it measures."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from phicalc.certificate import Figure, Plot
from phicalc.md import MDConfig, MDResult, run_md
from phicalc.validation.config import ValidationConfig
from phicalc.validation.subject import Subject


class Findings(NamedTuple):
    """What a check has measured."""

    figures: Iterable[Figure]
    plots: Iterable[Plot] = ()
    notes: Iterable[str] = ()


class Context(NamedTuple):
    """What a check may use beside its subject."""

    config: ValidationConfig
    folder: Path
    """Folder of this check alone, for files of runs that a later process continues."""

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers, the same ones for every run of a check."""
        return np.random.default_rng(self.config.seed)

    def dynamics(self, atoms: Atoms, duration: float, **settings: Any) -> MDResult:
        """Run dynamics of so many ps, or the rest of a run that was interrupted.

        Parameters
        ----------
        atoms
            With a calculator; they are moved.
        duration
            In ps.
        **settings
            Of `phicalc.md.MDConfig`, beside time step and seed; the temperature is that of the
            configuration unless it is given.
        """
        config = MDConfig(
            **{"temperature": self.config.temperature, "checkpoint_interval": 2000, **settings},
            timestep=self.config.timestep,
            steps=round(1000 * duration / self.config.timestep),
            seed=self.config.seed,
        )
        return run_md(atoms, config, self.folder, restart=True, progress=False)

    def reference(self, atoms: Atoms) -> Calculator | None:
        """Return the reference calculator for a structure, if one was given."""
        spec = self.config.reference
        if spec is None:
            return None
        charged = atoms.copy()
        charged.info.setdefault("charge", 0.0)
        return spec.make(charged)


def temperature_figure(result: MDResult, target: float, within: float) -> Figure:
    """Return how far the mean temperature of a run is off its target in K, and what it may be."""
    excess = result.temperature.value / target - 1
    name = "mean temperature over the target, less 1"
    return Figure.of(name, excess, at_least=-within, at_most=within)


@dataclass(frozen=True)
class Check:
    """A check of `phicalc.validation`.

    A module in ``phicalc.validation.checks`` with a check named ``CHECK`` is found and run.
    """

    name: str
    """As ``--only`` and ``--skip`` take it."""
    title: str
    """What it says about a model that passes, as in "short distances: walls for all pairs"."""
    cost: float
    """Seconds that it takes about; cheap ones run first, and those below a minute are quick."""
    applies: Callable[[Subject], str]
    """Returns why the check says nothing about a subject; empty where it does."""
    run: Callable[[Subject, Context], Findings]
    """Measures. What it raises is a failure of the subject."""
    quick: bool = True
    """Whether it runs with ``--quick``, too."""
