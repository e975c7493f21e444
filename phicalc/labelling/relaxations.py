"""A sampler of the way from distorted structures down to a minimum."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from ase import Atoms
from ase.optimize import LBFGS

from phicalc.labelling.calculators import CalculatorSpec
from phicalc.labelling.sampling import Chain
from phicalc.schema import AtLeast, Positive, checked, settings


@settings
@dataclass(frozen=True)
class RelaxationSampler:
    """Frames of relaxations from distorted copies, with the calculator that labels.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    frames: Annotated[int, AtLeast(1)] = 4
    """Frames of each relaxation; the first one is the distorted copy."""
    interval: Annotated[int, AtLeast(1)] = 5
    """Steps between frames."""
    displacement: Annotated[float, Positive] = 0.1
    """Standard deviation of the displacement of each coordinate at the start, in Å."""
    copies: Annotated[int, AtLeast(1)] = 2
    """Relaxations of each structure."""
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def chains(self, structures: Sequence[Atoms]) -> list[Chain]:
        """One chain for each relaxation."""
        note = {"sample": "relax"}
        return [
            Chain(number, self.frames, (self.seed, number, copy), note)
            for number in range(len(structures))
            for copy in range(self.copies)
        ]

    def advance(self, chain: Chain, index: int, atoms: Atoms, spec: CalculatorSpec) -> Atoms:
        """Distort a copy, or take some steps downhill from the frame before."""
        moving = spec.prepare(atoms)
        if index == 0:
            rng = np.random.default_rng(chain.seed)
            moving.positions += rng.normal(scale=self.displacement, size=(len(atoms), 3))
            return moving
        moving.calc = spec.make(moving)
        LBFGS(moving, logfile=os.devnull).run(fmax=1e-4, steps=self.interval)
        return moving
