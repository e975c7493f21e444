"""Near frames with labels that fit together, or not."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.spatial.transform import Rotation

from phicalc.data.config import KeysConfig
from phicalc.data.frames import LabelledAtoms, label_atoms


def labelled(atoms: Atoms, *, energy=1.0, forces=1.0, stress=1.0) -> LabelledAtoms:
    """Atoms with labels of EMT times these factors."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    labels = {
        "energy": energy * atoms.get_potential_energy(),
        "forces": forces * atoms.get_forces(),
    }
    if atoms.pbc.all():
        labels["stress"] = stress * atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return label_atoms(atoms, KeysConfig())


def molecules(rng, n=12) -> list[Atoms]:
    """Distorted, turned and shifted copies of a molecule."""
    frames = []
    for seed in range(n):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.03, seed=seed)
        atoms.positions = atoms.positions @ Rotation.random(rng=rng).as_matrix() + rng.normal(
            size=3
        )
        frames.append(atoms)
    return frames


def crystals(n=12, strain=0.0) -> list[Atoms]:
    """Distorted copies of a crystal in which atoms sit in other cells."""
    frames = []
    for seed in range(n):
        atoms = bulk("Cu", cubic=True)
        rng = np.random.default_rng(seed)
        small = strain * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + small + small.T), scale_atoms=True)
        atoms.rattle(0.02, seed=seed)
        atoms.positions += rng.integers(-1, 2, (4, 3)) @ atoms.cell.array + rng.normal(size=3)
        frames.append(atoms)
    return frames
