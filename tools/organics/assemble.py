"""Put labelled files together: what contradicts the rest is left out, what is rare counts more.

    python tools/organics/assemble.py l/*.xyz so3lr_organics.xyz

A network that sees no farther than its cutoff cannot tell a chlorine atom alone from a chloride ion
alone. Frames with parts farther apart that carry fractions of a charge, or with neutral single
atoms, are left out. Molecules of up to three heavy atoms are never held out, since nothing else
teaches what N₂ or F₂ is like. A loss of the kind ``norm`` hears little of few frames with large
errors: those of bonds that hardly turn, of molecules far apart and of bare ions are repeated.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from smiles import is_tiny

#: Cutoff of the model in Å, and by how much (e) charges of parts may differ from integers.
CUTOFF, FRACTION = 4.5, 0.05
#: How often frames for training are taken, by the name of their file.
REPEATS = {"stiff": 2, "tiny_torsions": 2, "separated": 2, "bare": 20}


def is_sound(atoms: Atoms) -> bool:
    """Whether all parts beyond the cutoff of each other are molecules or ions."""
    near = cdist(atoms.positions, atoms.positions) < CUTOFF
    n_parts, part = connected_components(near, directed=False)
    if n_parts == 1:
        return True
    charges = np.bincount(part, atoms.get_charges())
    single = np.bincount(part) == 1
    whole = np.abs(charges - charges.round()) <= FRACTION
    return bool((whole & ~(single & (charges.round() == 0))).all())


def taken(path: Path) -> list[Atoms]:
    """Return the frames of a file that are sound, some of them several times."""
    found = []
    for atoms in read(path, ":"):
        atoms.info["molecule"] = str(atoms.info["molecule"])  # HF reads as False
        if is_tiny(atoms):
            atoms.info["split"] = "train"
        if is_sound(atoms):
            training = atoms.info["split"] == "train"
            found.extend([atoms] * (REPEATS.get(path.stem, 1) if training else 1))
    return found


def main() -> None:
    """Read all files and write one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", type=Path, nargs="+", help="extended XYZ with labels")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    frames = [atoms for path in arguments.inputs for atoms in taken(path)]
    write(arguments.output, frames, format="extxyz")
    parts = dict(Counter(atoms.info["split"] for atoms in frames))
    print(len(frames), "frames", sum(map(len, frames)), "atoms", parts)


if __name__ == "__main__":
    main()
