"""Pairs of labelled molecules far apart, with the labels that they must have.

    python tools/organics/separated.py given.xyz tiny.xyz bare.xyz separated.xyz --number 2000

A teacher may let charge leak over any distance; the sum of two labelled molecules and of Coulomb's
law between their charges does not.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from smiles import is_tiny

from phicalc.units import COULOMB_CONSTANT

#: Distances of the centers in Å, beyond the reach of any network: only charges act there.
NEAR, FAR = 25.0, 60.0
#: How much more often bare ions are drawn than others.
BARE = 40
#: Total charges of pairs in e, and atoms of each molecule.
LARGEST_CHARGE, LARGEST_MOLECULE = 2, 24


def pair(first: Atoms, second: Atoms, distance: float, rng: np.random.Generator) -> Atoms:
    """Return two labelled molecules so far apart (Å) in a random direction, with labels."""
    parts = [first.copy(), second.copy()]
    direction = rng.normal(size=3)
    for atoms, place in zip(parts, (0.0, distance), strict=True):
        atoms.translate(place * direction / np.linalg.norm(direction) - atoms.get_center_of_mass())
    both = parts[0] + parts[1]
    charges = [atoms.get_charges() for atoms in (first, second)]
    energy, push = coulomb(parts[0].positions, parts[1].positions, *charges)
    forces = np.vstack([first.get_forces() + push[0], second.get_forces() + push[1]])
    total = [atoms.info["charge"] for atoms in (first, second)]
    places = [atoms.get_center_of_mass() - both.get_center_of_mass() for atoms in parts]
    dipole = sum(q * r for q, r in zip(total, places, strict=True))
    both.info = {
        "charge": sum(total),
        "config_type": "separated",
        "molecule": f"{first.info['molecule']} far from {second.info['molecule']}",
        "split": first.info["split"],
    }
    both.calc = SinglePointCalculator(
        both,
        energy=first.get_potential_energy() + second.get_potential_energy() + energy,
        forces=forces,
        charges=np.concatenate(charges),
        dipole=first.get_dipole_moment() + second.get_dipole_moment() + dipole,
    )
    return both


def coulomb(
    first: np.ndarray, second: np.ndarray, q: np.ndarray, p: np.ndarray
) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """Return the energy in eV of point charges (e) with others, and the forces in eV/Å on both."""
    apart = first[:, None] - second
    lengths = np.linalg.norm(apart, axis=2)
    energies = COULOMB_CONSTANT * q[:, None] * p / lengths
    forces = (energies / lengths**2)[:, :, None] * apart
    return float(energies.sum()), (forces.sum(1), -forces.sum(0))


def separated(frames: list[Atoms], number: int, rng: np.random.Generator) -> list[Atoms]:
    """Draw pairs within each part of the data; half have an ion, half a tiny molecule."""
    single = ("small", "cation", "anion", "drug", "zwitterion")
    known = [a for a in frames if a.info["config_type"] in single and len(a) <= LARGEST_MOLECULE]
    known += BARE * [a for a in known if len(a) == 1]
    smallest = [a for a in known if is_tiny(a)]
    found: list[Atoms] = []
    while len(found) < number:
        drawn = known if len(found) % 4 < 2 else smallest
        first = drawn[rng.integers(len(drawn))]
        others = [a for a in known if a.info["split"] == first.info["split"]]
        if len(found) % 2:
            others = [a for a in others if a.info["charge"] != 0]
        second = others[rng.integers(len(others))]
        if abs(first.info["charge"] + second.info["charge"]) <= LARGEST_CHARGE:
            found.append(pair(first, second, rng.uniform(NEAR, FAR), rng))
    return found


def main() -> None:
    """Read labelled molecules and write pairs of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", type=Path, nargs="+", help="labelled molecules, extended XYZ")
    parser.add_argument("output", type=Path)
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    frames = [atoms for file in arguments.inputs for atoms in read(file, ":")]
    for atoms in filter(is_tiny, frames):
        atoms.info["split"] = "train"
    write(arguments.output, separated(frames, arguments.number, rng), format="extxyz")


if __name__ == "__main__":
    main()
