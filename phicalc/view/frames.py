"""What a view shows of each frame: atoms in whole molecules, charges, the cell, a caption."""

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from jaxtyping import Float

from phicalc.structures.molecules import Molecules, find_molecules


def records(frames: Sequence[Atoms]) -> Iterator[dict[str, Any]]:
    """Yield each frame as plain values; arrays are little-endian float32, in Base64.

    ``symbols`` are left out where they are those of the frame before.
    """
    before: Atoms | None = None
    molecules = None
    for atoms in frames:
        record: dict[str, Any] = {}
        if before is None or not np.array_equal(before.numbers, atoms.numbers):
            record["symbols"] = atoms.get_chemical_symbols()
            molecules = find_molecules(atoms) if atoms.pbc.any() else None
        before, charges = atoms, charges_of(atoms)
        record["positions"] = _packed(_placed(atoms, molecules))
        if charges is not None:
            record["charges"] = _packed(charges)
        if atoms.pbc.any():
            record["cell"] = np.where(atoms.pbc[:, None], atoms.cell, 0.0).round(4).tolist()
        yield {**record, "caption": caption(atoms)}


def charges_of(atoms: Atoms) -> Float[np.ndarray, " n_atoms"] | None:
    """Return the partial charges in e that a frame holds, (n_atoms,), or None."""
    results = {} if atoms.calc is None else atoms.calc.results
    charges = results.get("charges", atoms.arrays.get("charges"))
    return None if charges is None else np.asarray(charges, dtype=float)


def caption(atoms: Atoms) -> str:
    """Describe a frame: composition, time, energy, temperature, as far as it tells them."""
    parts = [f"{atoms.get_chemical_formula()} ({len(atoms)} atoms)"]
    if "time_fs" in atoms.info:
        parts.append(f"{float(atoms.info['time_fs']) / 1000:.3f} ps")
    if atoms.calc is not None and atoms.calc.results.get("energy") is not None:
        parts.append(f"{float(atoms.calc.results['energy']):.4f} eV".replace("-", "−"))
    if atoms.has("momenta") and np.any(atoms.get_momenta()):
        parts.append(f"{atoms.get_temperature():.0f} K")
    return " · ".join(parts)


def _placed(atoms: Atoms, molecules: Molecules | None) -> Float[np.ndarray, "n_atoms 3"]:
    """Return positions with the first atom of each molecule inside the cell, the others around it.

    Molecules are those of an earlier frame; one that reaches over half the cell may come out torn.
    """
    if molecules is None:
        return atoms.positions
    cell, groups = complete_cell(atoms.cell), molecules.wholes
    scaled = np.linalg.solve(cell.T, atoms.positions.T).T
    anchors = scaled[np.unique(groups, return_index=True)[1]][groups]
    apart = scaled - anchors
    apart -= np.round(apart) * atoms.pbc
    # A crystal atom at −1e-9 of a cell belongs to 0, not to 1.
    anchors = anchors - np.floor(anchors + 1e-6) * atoms.pbc
    return (anchors + apart) @ cell


def _packed(values: Float[np.ndarray, "..."]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()
