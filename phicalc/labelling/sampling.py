"""Which structures are labelled: those given, distorted ones, or frames of dynamics.

A sampler divides the work into chains. Every frame of a chain follows from the one before it by
random numbers of its own, so that a chain can be left and taken up again anywhere, on any process,
with the same result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.velocitydistribution import thermalize_momenta

from phicalc.labelling.calculators import CalculatorSpec
from phicalc.schema import AtLeast, NotEmpty, Positive, checked, settings


class Chain(NamedTuple):
    """Frames that follow from one another."""

    structure: int
    """Number of the structure it starts from."""
    n_frames: int
    seed: tuple[int, ...]
    note: dict[str, Any]
    """What ``info`` of its frames says about it."""


@dataclass(frozen=True)
class GivenStructures:
    """The structures as they are."""

    def chains(self, structures: Sequence[Atoms]) -> list[Chain]:
        """One chain of one frame for each structure."""
        return [Chain(number, 1, (), {}) for number in range(len(structures))]

    def advance(self, chain: Chain, index: int, atoms: Atoms, spec: CalculatorSpec) -> Atoms:
        """Return the structure."""
        return atoms


@settings
@dataclass(frozen=True)
class RattleSampler:
    """Copies with displaced atoms and, along periodic directions, strained cells.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    copies: Annotated[int, AtLeast(1)] = 20
    """Frames for each structure."""
    displacement: Annotated[float, AtLeast(0)] = 0.05
    """Standard deviation of the displacement of each coordinate, in Å."""
    strain: Annotated[float, AtLeast(0)] = 0.02
    """Standard deviation of each shear of the symmetric strain of the cell; strains along an axis
    have √2 times that."""
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def chains(self, structures: Sequence[Atoms]) -> list[Chain]:
        """One chain of one frame for each copy."""
        return [
            Chain(number, 1, (self.seed, number, copy), {})
            for number in range(len(structures))
            for copy in range(self.copies)
        ]

    def advance(self, chain: Chain, index: int, atoms: Atoms, spec: CalculatorSpec) -> Atoms:
        """Distort a copy of the structure."""
        rng = np.random.default_rng(chain.seed)
        copy = atoms.copy()
        copy.set_constraint()
        draw = rng.normal(scale=self.strain, size=(3, 3))
        periodic = np.linalg.qr(atoms.cell.array[atoms.pbc].T)[0]  # a basis of their directions
        projector = periodic @ periodic.T
        deformation = np.eye(3) + projector @ (draw + draw.T) @ projector / np.sqrt(2)
        copy.set_cell(atoms.cell.array @ deformation)
        shifts = rng.normal(scale=self.displacement, size=(len(atoms), 3))
        copy.positions = atoms.positions @ deformation + shifts
        return copy


@settings
@dataclass(frozen=True)
class DynamicsSampler:
    """Every n-th frame of Langevin dynamics with the calculator that labels.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    temperatures: Annotated[tuple[Annotated[float, Positive], ...], NotEmpty] = (300.0,)
    """K; one trajectory for each."""
    frames: Annotated[int, AtLeast(1)] = 50
    """Frames of each trajectory."""
    interval: Annotated[int, AtLeast(1)] = 20
    """Time steps between frames."""
    timestep: Annotated[float, Positive] = 0.5
    """fs."""
    thermostat_time: Annotated[float, Positive] = 100.0
    """1/friction in fs."""
    copies: Annotated[int, AtLeast(1)] = 1
    """Trajectories for each structure and temperature, with random numbers of their own."""
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def chains(self, structures: Sequence[Atoms]) -> list[Chain]:
        """One chain for each trajectory."""
        return [
            Chain(number, self.frames, (self.seed, number, i, copy), {"temperature": kelvin})
            for number in range(len(structures))
            for i, kelvin in enumerate(self.temperatures)
            for copy in range(self.copies)
        ]

    def advance(self, chain: Chain, index: int, atoms: Atoms, spec: CalculatorSpec) -> Atoms:
        """Run dynamics from one frame to the next."""
        rng = np.random.default_rng((*chain.seed, index))
        kelvin = chain.note["temperature"]
        moving = spec.prepare(atoms)
        if index == 0:
            thermalize_momenta(moving, temperature_K=kelvin, rng=rng)
        # A new calculator for every stretch: nothing of the result may depend on what an old one
        # remembers (the density that iterations start from, say).
        moving.calc = spec.make(moving)
        dynamics = LangevinBAOAB(
            moving,
            self.timestep * units.fs,
            temperature_K=kelvin,
            T_tau=self.thermostat_time * units.fs,
            hydrostatic=True,  # the cell is fixed; this only spares 3×3 matrix exponentials
            rng=rng,
        )
        dynamics.run(self.interval)
        return moving
