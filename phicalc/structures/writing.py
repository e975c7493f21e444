"""Write structures with their results, and texts, whole or not at all."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from phicalc.state import write_atomically
from phicalc.structures.results import DEVIATIONS


def write_structures(path: str | Path, frames: Sequence[Atoms]) -> Path:
    """Write structures: with results as JSON if the name ends so, as CIF or POSCAR without them.

    Every other name gets extended XYZ, with results. A POSCAR holds the last structure. The folder
    is created if needed. The JSON is a list with one object per structure: symbols,
    positions (Å), cell (Å), pbc, charge (e, where ``info`` has one), the results under ASE's
    names and in ASE's units, and `DEVIATIONS` of a committee.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        write_text(path, json.dumps([_as_record(frame) for frame in frames], indent=1) + "\n")
    elif path.suffix == ".cif":
        ase.io.write(path, list(frames), format="cif")
    elif path.suffix in (".vasp", ".poscar") or path.name in ("POSCAR", "CONTCAR"):
        ase.io.write(path, frames[-1], format="vasp", direct=True)
    else:
        ase.io.write(path, list(frames), format="extxyz")
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file whole or not at all; the folder is created if needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    return path


def _as_record(atoms: Atoms) -> dict[str, Any]:
    """Structure, its total charge if it has been given one, and results as plain values."""
    charge = {"charge": float(atoms.info["charge"])} if "charge" in atoms.info else {}
    results = {} if atoms.calc is None else atoms.calc.results
    noted = {**atoms.info, **atoms.arrays}
    return {
        "symbols": atoms.get_chemical_symbols(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        **charge,
        **{name: np.asarray(value).tolist() for name, value in results.items()},
        **{name: np.asarray(noted[name]).tolist() for name in DEVIATIONS if name in noted},
    }
