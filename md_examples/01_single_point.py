"""Energy, forces, stress and charges of a box of water, and a bond stretched in it.

    python md_examples/01_single_point.py
    python md_examples/01_single_point.py --model my_model/ --steps 21 --output stretch.extxyz

A phicalc model is an ordinary ASE calculator: attach it to atoms, then ask the atoms.
"""

import argparse

import numpy as np
from ase import units

from phicalc import PhiCalculator
from phicalc.structures import snapshot, water_box, write_structures


def show_results(atoms, calculator):
    """Print everything the calculator knows about one structure; one evaluation gives it all."""
    stress = atoms.get_stress()  # eV/Å³, Voigt order, tension positive; only for periodic cells
    energy = atoms.get_potential_energy()
    forces = atoms.get_forces()
    charges = atoms.get_charges()
    oxygen = atoms.symbols == "O"

    print(f"{len(atoms)} atoms, cell {atoms.cell.lengths()[0]:.2f} Å")
    print(f"energy          {energy:14.4f} eV")
    for name, value in calculator.energy_terms.items():
        print(f"  {name:<14}{value:14.4f} eV")
    print(f"largest force   {np.linalg.norm(forces, axis=1).max():14.4f} eV/Å")
    print(f"sum of forces   {np.linalg.norm(forces.sum(axis=0)):14.1e} eV/Å")
    print(f"pressure        {-stress[:3].mean() / units.GPa:14.4f} GPa (without motion)")
    print(f"mean charges    O {charges[oxygen].mean():+.3f} e, H {charges[~oxygen].mean():+.3f} e")
    print(f"sum of charges  {charges.sum():14.1e} e")


def stretch_bond(atoms, calculator, n_points):
    """Pull a hydrogen away from its oxygen; energy and charges answer at every distance."""
    oxygen, hydrogen = 0, 1  # the first molecule; its atoms are neighbours in the list
    frames = []
    print("\nstretching one O–H bond:")
    print(f"{'O–H (Å)':>8} {'E − E₀ (eV)':>12} {'q_O (e)':>9} {'q_H (e)':>9}")
    for length in np.linspace(0.85, 1.25, n_points):
        moved = atoms.copy()
        moved.set_distance(oxygen, hydrogen, length, fix=0)
        moved.calc = calculator
        change = moved.get_potential_energy() - atoms.get_potential_energy()
        charges = moved.get_charges()
        print(f"{length:8.3f} {change:12.4f} {charges[oxygen]:9.3f} {charges[hydrogen]:9.3f}")
        frames.append(snapshot(moved))
        # `atoms` shares the calculator with `moved`: ASE sees the difference and recomputes.
    return frames


def check_forces(atoms, calculator):
    """Compare a force with two energies: it is minus their slope."""
    step, atom, axis = 1e-3, 4, 2
    slope = 0.0
    for sign in (+1, -1):
        moved = atoms.copy()
        moved.positions[atom, axis] += sign * step
        moved.calc = calculator
        slope += sign * moved.get_potential_energy() / (2 * step)
    force = atoms.get_forces()[atom, axis]
    print(f"\nforce on atom {atom}: {force:+.6f} eV/Å, from energy differences {-slope:+.6f} eV/Å")


def main():
    """Evaluate one box, check a force, stretch a bond."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="water", help="name or folder of a model")
    parser.add_argument("--steps", type=int, default=9, help="points of the stretched bond")
    parser.add_argument("--output", help="extended XYZ file for the stretched structures")
    arguments = parser.parse_args()

    atoms = water_box(64)
    calculator = PhiCalculator(arguments.model, dtype="float64")  # float32 is faster, fine for MD
    atoms.calc = calculator

    show_results(atoms, calculator)
    check_forces(atoms, calculator)
    frames = stretch_bond(atoms, calculator, arguments.steps)
    if arguments.output:
        print(f"written: {write_structures(arguments.output, frames)}")


if __name__ == "__main__":
    main()
