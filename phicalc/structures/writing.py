"""Write structures with their results, and texts, whole or not at all."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from phicalc.state import write_atomically
from phicalc.structures.portable import portable, warn_of_changes
from phicalc.structures.results import DEVIATIONS


def write_structures(path: str | Path, frames: Sequence[Atoms]) -> Path:
    """Write structures with their results; returns the file, whose name says its format.

    ==================================  =========================================================
    ``.json``                           a list with one object per structure: symbols, positions
                                        (Å), cell (Å), pbc, charge (e, if ``info`` has one), the
                                        results under ASE's names and in ASE's units, and
                                        `DEVIATIONS` of a committee
    ``.traj``                           ASE's trajectory
    ``.cif``                            without results
    ``.vasp``, ``.poscar``, POSCAR,     the last structure, without results
    CONTCAR
    ``.xyz``, ``.extxyz``, and others   extended XYZ
    ==================================  =========================================================

    An extension that means yet another format to ASE gets ``.extxyz`` behind it, with a warning.
    Entries of ``info`` and arrays that the format cannot hold, or that have the name of a result,
    are renamed or dropped (`phicalc.structures.portable`), with a warning. The folder is created
    if needed.

    Parameters
    ----------
    path
        The file.
    frames
        Structures with or without results; nothing is computed.

    Raises
    ------
    ValueError
        If there is no structure to write.
    """
    if not frames:
        raise ValueError(f"no structure to write to {path}")
    path = _with_own_extension(Path(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        write_text(path, json.dumps([_as_record(frame) for frame in frames], indent=1) + "\n")
    elif path.suffix == ".cif":
        ase.io.write(path, list(frames), format="cif")
    elif _is_poscar(path):
        ase.io.write(path, frames[-1], format="vasp", direct=True)
    else:
        _write_entries(path, frames, "traj" if path.suffix == ".traj" else "extxyz")
    return path


def _write_entries(path: Path, frames: Sequence[Atoms], file_format: str) -> None:
    """Write structures with results, ``info`` and arrays, as far as the format holds them."""
    written = [portable(frame, file_format) for frame in frames]
    ase.io.write(path, [each.atoms for each in written], format=file_format)
    changes = dict.fromkeys(change for each in written for change in each.changes)
    warn_of_changes(tuple(changes), path)


def holds_results(path: str | Path) -> bool:
    """Whether `write_structures` writes results, too, into a file of this name."""
    return Path(path).suffix != ".cif" and not _is_poscar(Path(path))


def _is_poscar(path: Path) -> bool:
    """Whether a name means the POSCAR format."""
    return path.suffix in (".vasp", ".poscar") or path.name in ("POSCAR", "CONTCAR")


def means_another_format(path: str | Path) -> bool:
    """Whether a file of this name would not be read as extended XYZ."""
    path = Path(path)
    if _is_poscar(path):
        return True
    try:
        usual = filetype(path.name, read=False)
    except UnknownFileTypeError:
        return False
    return usual in ioformats and usual not in ("extxyz", "xyz")


def _with_own_extension(path: Path) -> Path:
    """Add ``.extxyz`` to a name under which extended XYZ would not be read again."""
    if path.suffix in (".json", ".cif") or _is_poscar(path):
        return path
    try:
        usual = filetype(path.name, read=False)
    except UnknownFileTypeError:
        return path
    if usual in ("extxyz", "traj", "xyz") or usual not in ioformats:
        return path
    longer = path.with_name(f"{path.name}.extxyz")
    warnings.warn(
        f"{usual} files do not hold results: extended XYZ is written, to {longer}", stacklevel=3
    )
    return longer


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
