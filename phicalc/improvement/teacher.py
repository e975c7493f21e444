"""Whether a reference calculator can be trusted: forces belong to energies, in eV and Å."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from phicalc.labelling import CalculatorSpec, LabellingResult, NothingLabelledError, label
from phicalc.structures import read_structures

#: Å: the two atoms that are nearest are pulled apart by so much, and by a little less and more.
PULL, STEP = 0.05, 0.01
#: eV/Å: smaller forces show nothing.
WEAKEST = 0.05
#: eV/Å: forces in other units may be large.
ANY_FORCE = 1e6
#: By how much forces may differ from differences of energies, as a fraction.
TOLERANCE = 0.1
#: What energies and forces are in if differences of energies are so many times the forces.
UNITS = {
    1 / 27.2114: "energies in Hartree beside forces in eV/Å",
    1 / 13.6057: "energies in Rydberg beside forces in eV/Å",
    23.0605: "energies in kcal/mol beside forces in eV/Å",
    96.4853: "energies in kJ/mol beside forces in eV/Å",
    51.4221: "energies in eV beside forces in Hartree/Bohr",
    25.7110: "energies in eV beside forces in Rydberg/Bohr",
    1.889726: "energies and forces in atomic units, or lengths in Bohr",
    0.529177: "positions taken as Bohr",
    1 / 23.0605: "energies in eV beside forces in kcal/mol/Å",
    1000.0: "energies in meV beside forces in eV/Å",
    -1.0: "gradients in place of forces: their sign is wrong",
}
#: eV/Å²: force constants of bonds among these elements, with a wide margin.
STIFFNESS = (12.0, 190.0)
_STIFF = {1, 6, 7, 8}


class Verdict(NamedTuple):
    """What is known of a reference calculator."""

    ratio: float | None
    """Difference of energies over force, a number that should be 1; None if it is not known."""
    stiffness: float | None
    """Force constant of a bond in eV/Å²; None where none was looked at."""
    warning: str = ""
    """What looks wrong, but may be right."""


def examine(
    structures: Sequence[Atoms],
    spec: CalculatorSpec,
    output: Path,
    *,
    workers: int,
    timeout: float | None,
) -> Verdict:
    """Compare the forces of the reference with differences of its energies for one structure.

    Parameters
    ----------
    structures
        The first one with two atoms is taken.
    spec
        The reference calculator.
    output
        File for the labelled frames.
    workers, timeout
        As of `phicalc.labelling.label`.

    Raises
    ------
    ValueError
        If energies and forces do not belong together; the message names the units if it can.
    RuntimeError
        If it labels none of the frames.
    """
    pair = next((atoms for atoms in structures if len(atoms) > 1), None)
    if pair is None:
        return Verdict(None, None)
    frames, direction = _pulled(pair)
    try:
        result = label(
            frames, spec, output, workers=workers, timeout=timeout, max_force=ANY_FORCE,
            progress=False,
        )  # fmt: skip
    except NothingLabelledError as error:
        error.journal.unlink(missing_ok=True)  # the next start tries again
        raise RuntimeError(f"{error.reason}: {spec.name} gives no labels") from error
    if result.failures:
        return Verdict(None, None, f"the reference calculator failed: {_first(result)}")
    labelled = read_structures(output)
    energies = [atoms.get_potential_energy() for atoms in labelled]
    low, middle, high = (float((atoms.get_forces() * direction).sum()) for atoms in labelled)
    slope = -(energies[2] - energies[0]) / (2 * STEP)
    stiffness = _stiffness(pair, direction, -(high - low) / (2 * STEP))
    if abs(middle) < WEAKEST > abs(slope):
        return Verdict(None, stiffness)
    ratio = float(slope / middle) if middle else np.inf
    if abs(ratio - 1) > TOLERANCE:
        raise ValueError(_mismatch(spec.name, slope, middle, ratio))
    return Verdict(ratio, stiffness, _unusual(spec.name, stiffness))


def _first(result: LabellingResult) -> str:
    return str(result.failures[0]["error"])


def _pulled(atoms: Atoms) -> tuple[list[Atoms], np.ndarray]:
    """Return frames with the nearest pair pulled apart, and the direction of the pull."""
    distances = atoms.get_all_distances(mic=True) / (
        covalent_radii[atoms.numbers][:, None] + covalent_radii[atoms.numbers]
    )
    np.fill_diagonal(distances, np.inf)
    first, second = np.unravel_index(distances.argmin(), distances.shape)
    vector = atoms.get_distance(first, second, mic=True, vector=True)
    direction = np.zeros((len(atoms), 3))
    direction[second] = vector / np.linalg.norm(vector)
    frames = [atoms.copy() for _ in range(3)]
    for frame, pull in zip(frames, (PULL - STEP, PULL, PULL + STEP), strict=True):
        frame.set_constraint()
        frame.positions += pull * direction
    return frames, direction


def _stiffness(atoms: Atoms, direction: np.ndarray, found: float) -> float | None:
    """Return the force constant in eV/Å² if it is that of a bond whose strength is known."""
    moved = int(np.abs(direction).sum(axis=1).argmax())
    near = np.argsort(atoms.get_distances(moved, range(len(atoms)), mic=True))[1]
    numbers = atoms.numbers[[moved, near]]
    bonded = atoms.get_distance(moved, near, mic=True) < 1.3 * covalent_radii[numbers].sum()
    known = set(numbers.tolist()) <= _STIFF and not atoms.pbc.any()
    return float(found) if bonded and known else None


def _mismatch(name: str, slope: float, force: float, ratio: float) -> str:
    """Say that forces are not derivatives of energies, and what they may be."""
    likely = [text for value, text in UNITS.items() if abs(ratio / value - 1) < TOLERANCE]
    guess = f", as of {likely[0]}" if likely else ""
    return (
        f"forces of {name} are not the derivatives of its energies: pulling the nearest two atoms "
        f"apart, differences of energies give {slope:.4g} eV/Å and forces {force:.4g} eV/Å, "
        f"a ratio of {ratio:.3g}{guess}. Labels must be in eV and eV/Å; mend the calculator "
        "(check_reference: false trains on it nevertheless)"
    )


def _unusual(name: str, stiffness: float | None) -> str:
    """Say that a bond is stiffer or softer than any; energies and forces may share a wrong unit."""
    if stiffness is None or STIFFNESS[0] <= stiffness <= STIFFNESS[1]:
        return ""
    units = "Hartree" if abs(stiffness) < STIFFNESS[0] else "kcal/mol or kJ/mol"
    return (
        f"a bond of {name} has the force constant {stiffness:.3g} eV/Å², where bonds of H, C, N "
        f"and O have {STIFFNESS[0]:g} to {STIFFNESS[1]:g}: energies and forces may both be in "
        f"{units}"
    )
