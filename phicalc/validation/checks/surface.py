"""Surfaces: to cleave a crystal costs energy."""

import numpy as np
from ase import Atoms
from ase.build import make_supercell, surface
from ase.units import J, m

from phicalc.certificate import Figure
from phicalc.properties import equation_of_state
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.checks.crystals import applies
from phicalc.validation.structures import crystals
from phicalc.validation.subject import Subject

LAYERS = 6
#: Å of vacuum on each side.
VACUUM = 12.0


def cleaved(crystal: Atoms) -> Atoms:
    """Return a (100) slab of a crystal, in vacuum, periodic along its surfaces."""
    slab = surface(crystal, (1, 0, 0), LAYERS, vacuum=VACUUM)
    slab.pbc = (True, True, False)
    return slab


def _run(subject: Subject, context: Context) -> Findings:
    figures = []
    for name, (atoms, length, _) in crystals(subject).items():
        scale = equation_of_state(subject.ready(atoms), strain=0.09).scale
        atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
        slab = cleaved(_conventional(atoms, length * scale))
        bulk_energy = subject.energy(atoms) / len(atoms)
        area = float(np.linalg.norm(np.cross(*slab.cell.array[:2])))
        energy = (subject.energy(slab) - len(slab) * bulk_energy) / (2 * area)
        figures.append(
            Figure.of(f"{name} (100), unrelaxed", energy * m**2 / J, "J/m²", at_least=0.02)
        )
    return Findings(figures)


def _conventional(atoms: Atoms, length: float) -> Atoms:
    """Return the cubic cell of a primitive one of a cubic crystal."""
    inverse = np.linalg.inv(atoms.cell.array)
    matrix = np.round(length * np.eye(3) @ inverse).astype(int)
    return make_supercell(atoms, matrix)


CHECK = Check(
    name="surface",
    title="Surfaces: to cleave a crystal costs energy",
    cost=16.0,
    applies=applies,
    run=_run,
)
