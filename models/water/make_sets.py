"""Divide the frames of MB-pol into sets: ``python models/water/make_sets.py FILE``.

FILE is ``water_mbpol.xyz.gz``. Into the current folder go ``water_mbpol_sets.xyz.gz``, all frames,
and ``water_mbpol_liquids.xyz.gz``, those whose ``config_type`` is ``liquid``, in their order.
Frames marked ``val`` are the test set; 70 liquids and 40 others, drawn at random, choose the epoch
of both stages; the rest is trained on.
"""

import sys

import ase.io
import numpy as np
from ase import Atoms

VALIDATION = {True: 70, False: 40}  # liquids, others


def is_liquid(atoms: Atoms) -> bool:
    """Whether a frame is one of the first stage."""
    return atoms.info["config_type"] == "liquid"


def main(source: str) -> None:
    """Mark every frame and write both files."""
    frames = ase.io.read(source, ":")
    for atoms in frames:
        atoms.info["split"] = "test" if atoms.info.get("split") == "val" else "train"
    for liquid, count in VALIDATION.items():
        pool = [a for a in frames if is_liquid(a) is liquid and a.info["split"] == "train"]
        for i in np.random.default_rng(0).permutation(len(pool))[:count]:
            pool[i].info["split"] = "valid"
    liquids = [a for a in frames if is_liquid(a)]
    ase.io.write("water_mbpol_sets.xyz.gz", frames, format="extxyz")
    ase.io.write("water_mbpol_liquids.xyz.gz", liquids, format="extxyz")
    for name, chosen in (("all", frames), ("liquids", liquids)):
        splits = [a.info["split"] for a in chosen]
        print(name, {split: splits.count(split) for split in ("train", "valid", "test")})


if __name__ == "__main__":
    main(sys.argv[1])
