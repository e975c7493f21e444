"""Energies along a path, and what a path says about walls and barriers."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculatorError
from jaxtyping import Float64
from numpy import ndarray

from phicalc.relax import relax
from phicalc.validation.structures import largest_charge
from phicalc.validation.subject import Subject

#: Errors that mean "no result for this structure".
REFUSALS = (CalculatorError, ArithmeticError, RuntimeError, ValueError)


class Scan(NamedTuple):
    """Energies of structures along a path."""

    energies: Float64[ndarray, " n"]
    """eV; NaN where the calculator gave no result."""
    excess: float
    """Largest charge in e beyond what its element may carry; NaN without charges."""


def scan(subject: Subject, frames: Iterable[Atoms], charge: float | None = None) -> Scan:
    """Return the energies of structures, with a total charge in e as of `Subject.ready`.

    Raises
    ------
    RuntimeError
        If the calculator gives no result for any of them.
    """
    structures = list(frames)
    problems: list[str] = []
    found = _together(subject, structures, charge)
    if found is None:
        found = [_alone(subject, each, charge, problems) for each in structures]
    if len(problems) == len(structures):
        raise RuntimeError(f"no result for {structures[0].get_chemical_formula()}: {problems[0]}")
    energies = np.array([energy for energy, _ in found], dtype=float)
    pairs = zip(structures, found, strict=True)
    excesses = [excess_charge(each, charges) for each, (_, charges) in pairs]
    kept = [value for value in excesses if not np.isnan(value)]
    return Scan(energies, max(kept, default=np.nan))


Result = tuple[float, Float64[ndarray, " n_atoms"] | None]
"""Energy in eV, NaN if refused, and charges in e, if there are any."""


def _alone(subject: Subject, frame: Atoms, charge: float | None, problems: list[str]) -> Result:
    """Return the results of one structure; a refusal is noted among the problems."""
    try:
        atoms = subject.ready(frame, charge)
        return float(atoms.get_potential_energy()), subject.charges(atoms)
    except REFUSALS as error:
        problems.append(str(error))
        return float("nan"), None


def _together(subject: Subject, frames: list[Atoms], charge: float | None) -> list[Result] | None:
    """Return the results of all structures at once; None if that cannot be, or one is refused."""
    try:
        calculator = subject.ready(frames[0], charge).calc
        if not hasattr(calculator, "batch"):
            return None
        results = calculator.batch([subject.ready(frame, charge) for frame in frames])
    except REFUSALS:
        return None
    return [(float(each["energy"]), each.get("charges")) for each in results]


def excess_charge(atoms: Atoms, charges: Float64[ndarray, " n_atoms"] | None) -> float:
    """Largest charge in e of a structure beyond what its element may carry; NaN without charges."""
    if charges is None or not len(charges):
        return float("nan")
    limits = np.array([largest_charge(symbol) for symbol in atoms.symbols])
    return float((np.abs(charges) - limits).max())


class Wall(NamedTuple):
    """What a path inwards says about the wall at its end; energies in eV."""

    top: float
    """Highest energy above the start."""
    fall: float
    """Largest drop on the way in."""
    refused: bool
    """Whether the calculator refused a structure before the wall was high."""


def wall(energies: Float64[ndarray, " n"], n_outer: int, high: float) -> Wall:
    """Return the wall on a path from outside inwards.

    Parameters
    ----------
    energies
        In eV, NaN where refused.
    n_outer
        The path starts at the lowest of so many points at the outer end.
    high
        What is refused behind a wall of this height, in eV, does not matter.
    """
    outer = energies[:n_outer]
    if np.isnan(outer).all():
        return Wall(float("nan"), float("nan"), True)
    start = int(np.nanargmin(outer))
    inwards = energies[start:] - energies[start]
    refused = np.flatnonzero(np.isnan(inwards))
    end = int(refused[0]) if len(refused) else len(inwards)
    inwards = inwards[:end]
    falls = np.maximum.accumulate(inwards) - inwards
    top = float(inwards.max())
    return Wall(top, float(falls.max()), bool(len(refused)) and top < high)


def relaxed(
    subject: Subject, atoms: Atoms, *, fmax: float = 0.01, steps: int = 400, cell: bool = False
) -> Atoms:
    """Return a copy of a structure, with a calculator, at the nearest minimum.

    No force is larger than `fmax` there, in eV/Å.

    Raises
    ------
    RuntimeError
        If it does not settle.
    """
    moving = subject.ready(atoms)
    if len(moving) == 1 and not cell:
        return moving
    result = relax(moving, fmax=fmax, steps=steps, cell=cell, optimizer="bfgs")
    if not result.converged:
        raise RuntimeError(
            f"{atoms.get_chemical_formula()} did not relax in {steps} steps: the largest force "
            f"is {result.max_force:.3g} eV/Å"
        )
    return moving


def bisected_jump(
    evaluate: Callable[[float], Float64[ndarray, " n"]],
    low: float,
    high: float,
    n_halvings: int,
    small: float,
) -> float:
    """Return by how much a vector still changes over an interval that shrinks to its steepest half.

    It tends to zero where the function is continuous, and to the jump where it is not. Below
    `small` no more halves are taken.
    """
    at_low, at_high = evaluate(low), evaluate(high)
    for _ in range(n_halvings):
        if np.abs(at_high - at_low).max() < small:
            break
        middle = (low + high) / 2
        at_middle = evaluate(middle)
        if np.abs(at_middle - at_low).max() > np.abs(at_high - at_middle).max():
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    return float(np.abs(at_high - at_low).max())
