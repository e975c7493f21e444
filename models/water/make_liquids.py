"""Write the liquids among the frames of MB-pol: ``python models/water/make_liquids.py FILE``.

FILE is ``water_mbpol.xyz.gz``; ``water_mbpol_liquids.xyz.gz`` is written into the current folder.
"""

import sys

import ase.io

OUTPUT = "water_mbpol_liquids.xyz.gz"


def main(source: str) -> None:
    """Keep the frames whose ``config_type`` is ``liquid``, in their order."""
    frames = [a for a in ase.io.read(source, ":") if a.info["config_type"] == "liquid"]
    ase.io.write(OUTPUT, frames, format="extxyz")
    print(f"{len(frames)} liquids in {OUTPUT}")


if __name__ == "__main__":
    main(sys.argv[1])
