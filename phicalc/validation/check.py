"""What a check is: a name, where it applies, and what it measures."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from phicalc.certificate import Figure, Plot
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

    def reference(self, atoms: Atoms) -> Calculator | None:
        """Return the reference calculator for a structure, if one was given."""
        spec = self.config.reference
        if spec is None:
            return None
        charged = atoms.copy()
        charged.info.setdefault("charge", 0.0)
        return spec.make(charged)


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
