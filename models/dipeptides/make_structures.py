"""Structures to label with GFN2-xTB: short dynamics of every training structure.

``python models/dipeptides/make_structures.py spice_dipeptides_mbis_train.xyz.gz structures.extxyz``

Langevin dynamics with ``dipeptides-phi`` from each structure at 300, 500, 700 or 900 K, sixteen
structures 15 fs apart. Only training structures are started from, none of the validation file.
"""

import argparse

import numpy as np
from ase import Atoms, units
from ase.io import iread, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from tqdm import tqdm

from phicalc import PhiCalculator

TEMPERATURES = (300, 500, 700, 900)  # K
FRAMES, INTERVAL, TIMESTEP, FRICTION = 16, 15, 1.0, 0.02  # of each start; steps; fs; 1/fs
LARGEST_FORCE = 25.0  # eV/Å: a trajectory that meets more ends before it


def sample(start: Atoms, calculator: PhiCalculator, rng: np.random.Generator) -> list[Atoms]:
    """Return structures along a short trajectory."""
    atoms = Atoms(start.numbers, start.positions, calculator=calculator)
    temperature = float(rng.choice(TEMPERATURES))
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    dynamics = Langevin(
        atoms, TIMESTEP * units.fs, temperature_K=temperature, friction=FRICTION / units.fs,
        rng=rng, fixcm=False,
    )  # fmt: skip
    found: list[Atoms] = []
    for _ in range(FRAMES):
        dynamics.run(INTERVAL)
        if not abs(atoms.get_forces()).max() < LARGEST_FORCE:
            break
        found.append(Atoms(atoms.numbers, atoms.positions, info={"charge": 0.0}))
    return found


def main() -> None:
    """Sample every structure of a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", help="structures to start from")
    parser.add_argument("output", help="extended XYZ file")
    arguments = parser.parse_args()
    calculator, rng = PhiCalculator("dipeptides-phi", compile=True), np.random.default_rng(7)
    starts = iread(arguments.input, ":")
    found = [atoms for start in tqdm(starts) for atoms in sample(start, calculator, rng)]
    write(arguments.output, found, format="extxyz")


if __name__ == "__main__":
    main()
