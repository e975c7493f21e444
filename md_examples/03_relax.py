"""Relax a structure: first the positions, then positions and cell together.

    python md_examples/03_relax.py
    python md_examples/03_relax.py --steps 1000 --output relaxed/

`phicalc.relax` drives ASE's optimisers. In plain ASE, its two calls below read
``LBFGS(atoms).run(fmax=0.05)`` and ``LBFGS(FrechetCellFilter(atoms)).run(fmax=0.05)``.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk

from phicalc import PhiCalculator
from phicalc.relax import relax
from phicalc.structures import snapshot, write_structures

GRAM_PER_CC = units.kg / 1000 / (units.m / 100) ** 3  # in amu/Å³


def describe(label, atoms):
    """Print one line: energy, largest force, pressure and density."""
    pressure = -atoms.get_stress()[:3].mean() / units.GPa
    energy = atoms.get_potential_energy() / len(atoms)
    force = np.linalg.norm(atoms.get_forces(), axis=1).max()
    density = atoms.get_masses().sum() / atoms.get_volume() / GRAM_PER_CC
    print(f"{label:<22}{energy:>14.4f}{force:>12.4f}{pressure:>12.3f}{density:>12.4f}")


def main():
    """Relax twice and show what each relaxation gained."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="rocksalts", help="name or folder of a model")
    parser.add_argument("--steps", type=int, default=250, help="most steps of each relaxation")
    parser.add_argument("--fmax", type=float, default=0.05, help="largest force at the end, eV/Å")
    parser.add_argument("--output", default="relax_salt", help="folder for the structures")
    arguments = parser.parse_args()

    atoms = bulk("NaCl", "rocksalt", a=5.9, cubic=True).repeat(2)
    atoms.rattle(0.1, seed=0)
    atoms.calc = PhiCalculator(arguments.model)

    print(f"{'':<22}{'E (eV/atom)':>14}{'max |F|':>12}{'P (GPa)':>12}{'ρ (g/cm³)':>12}")
    describe("shaken", atoms)
    frames = [snapshot(atoms)]

    fixed_cell = relax(atoms, fmax=arguments.fmax, steps=arguments.steps)
    describe("positions relaxed", atoms)
    frames.append(snapshot(atoms))

    free_cell = relax(atoms, fmax=arguments.fmax, steps=arguments.steps, cell=True)
    describe("and the cell", atoms)
    frames.append(snapshot(atoms))

    for label, result in (("positions", fixed_cell), ("positions and cell", free_cell)):
        ending = "converged" if result.converged else "not converged yet"
        print(f"{label}: {ending} after {result.steps} steps")
    lengths, angles = atoms.cell.lengths(), atoms.cell.angles()
    print("cell: " + " ".join(f"{x:.3f}" for x in lengths) + " Å, angles "
          + " ".join(f"{x:.1f}" for x in angles) + "°")  # fmt: skip

    output = write_structures(Path(arguments.output) / "relaxed.extxyz", frames)
    print(f"written: {output} (start, relaxed, relaxed with cell)")


if __name__ == "__main__":
    main()
