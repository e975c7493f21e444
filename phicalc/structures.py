"""Structures in and out: files of any format that ASE knows, and boxes of water to start from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import complete_cell
from scipy.spatial.transform import Rotation

from phicalc.state import write_atomically
from phicalc.units import GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM

#: `ase.Atoms`, or a `Structure` or `Molecule` of pymatgen (optional: hence no narrower type).
Structure = Any

#: Two atoms nearer than this (Å) are taken for a mistake in the input.
COINCIDENCE_DISTANCE = 0.1

#: Results of calculators that are written into files if they are there.
RESULTS = ("energy", "forces", "stress", "charges", "dipole")

#: What committees add to them, in ``info`` or arrays: standard deviations over their members.
DEVIATIONS = ("energy_std", "forces_std", "charges_std")

#: Fractional sites of the simple, body-centred and face-centred cubic lattices.
LATTICES = (
    np.zeros((1, 3)),
    np.array([[0, 0, 0], [1, 1, 1]]) / 2,
    np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2,
)

#: Distance between nearest sites of each lattice, for a cube of edge 1.
LATTICE_SPACINGS = (1.0, np.sqrt(3) / 2, np.sqrt(2) / 2)

#: Molecules closer than this (O–O, Å) are not a sensible start for dynamics.
SMALLEST_OXYGEN_DISTANCE = 2.4


def read_structures(path: str | Path, index: str = ":") -> list[Atoms]:
    """Read structures from a file of any format that ASE knows (CIF, POSCAR, extxyz, …).

    Parameters
    ----------
    path
        The file.
    index
        Which structures, in ASE's notation: ``":"`` all, ``"-1"`` the last, ``"::10"`` every tenth.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be understood, or holds no structure at `index`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no structure file {path}: check the name and the folder")
    try:
        frames = ase.io.read(path, index=index)
    except Exception as error:  # ASE's readers raise whatever their parsers stumble over
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"cannot read structures {index!r} from {path}: {reason}. Expected a file that "
            "ase.io.read understands, such as extxyz, CIF or POSCAR"
        ) from error
    frames = [frames] if isinstance(frames, Atoms) else list(frames)
    if not frames:
        raise ValueError(f"{path} holds no structure at index {index!r}: use ':' for all")
    return frames


def to_atoms(structure: Structure) -> Atoms:
    """Return ASE's atoms of a structure: themselves, or made from pymatgen's objects.

    A net charge that pymatgen's object has been given is found in ``info["charge"]``.

    Raises
    ------
    TypeError
        If it is none of these.
    """
    if isinstance(structure, Atoms):
        return structure
    if not hasattr(structure, "sites"):  # before the import: without pymatgen it cannot be one
        raise _stranger(structure)
    core, adaptor = _pymatgen()
    if not isinstance(structure, core.SiteCollection):
        raise _stranger(structure)
    made = adaptor.get_atoms(structure, msonable=False)
    atoms = Atoms(made.symbols, made.positions, cell=made.cell, pbc=made.pbc)
    if structure.charge:
        atoms.info["charge"] = float(structure.charge)
    return atoms


def to_pymatgen(atoms: Atoms) -> Structure:
    """Return pymatgen's `Molecule` of atoms without periodic directions, else its `Structure`.

    ``info["charge"]`` becomes the charge; constraints, velocities and results are left behind.

    Raises
    ------
    ImportError
        Without pymatgen (the extra ``materials``).
    """
    core, _ = _pymatgen()
    symbols, charge = atoms.get_chemical_symbols(), float(atoms.info.get("charge", 0.0))
    if not atoms.pbc.any():
        # The spin is not ours to know: the least that the number of electrons allows.
        return core.Molecule(symbols, atoms.positions, charge=charge)
    lattice = core.Lattice(complete_cell(atoms.cell), pbc=tuple(map(bool, atoms.pbc)))
    return core.Structure(
        lattice, symbols, atoms.positions, coords_are_cartesian=True, charge=charge or None
    )


def like(original: Structure, atoms: Atoms) -> Structure:
    """Return atoms as the kind of structure that `original` is."""
    return atoms if isinstance(original, Atoms) else to_pymatgen(atoms)


def _stranger(structure: object) -> TypeError:
    return TypeError(
        "a structure must be ase.Atoms or a Structure or Molecule of pymatgen, "
        f"got {type(structure).__name__}"
    )


def _pymatgen() -> tuple[Any, Any]:
    """Import pymatgen's structures and its adaptor to ASE, or say how to get them."""
    try:
        from pymatgen import core
        from pymatgen.io.ase import AseAtomsAdaptor
    except ImportError as error:
        raise ImportError(
            f"structures of pymatgen need pymatgen ({error}): pip install 'phicalc[materials]'"
        ) from error
    return core, AseAtomsAdaptor


def same_structure(first: Atoms | None, second: Atoms) -> bool:
    """Whether positions, elements and cell are the same: ASE's own comparison takes longer."""
    return first is not None and all(
        np.array_equal(one, other)
        for one, other in (
            (first.positions, second.positions),
            (first.numbers, second.numbers),
            (first.cell.array, second.cell.array),
            (first.pbc, second.pbc),
        )
    )


def snapshot(atoms: Atoms, **info: Any) -> Atoms:
    """Copy atoms together with the results that have been computed for them.

    Nothing is computed here. `info` is added to the copy's ``info``. What the members of a
    committee disagree in stands in its ``info`` (``energy_std``) and arrays (``forces_std``, …).
    """
    copy = atoms.copy()
    copy.info.update(info)
    if atoms.calc is not None:
        offered = [name for name in RESULTS if name in atoms.calc.implemented_properties]
        results = {
            name: atoms.calc.get_property(name, atoms, allow_calculation=False) for name in offered
        }
        copy.calc = SinglePointCalculator(copy, **results)
        if copy.calc.results:
            _add_spread(copy, getattr(atoms.calc, "committee_results", {}))
    return copy


def _add_spread(atoms: Atoms, spread: Mapping[str, np.ndarray]) -> None:
    """Note standard deviations: of atoms in arrays, others in ``info``."""
    for name, value in spread.items():
        if np.ndim(value):
            atoms.set_array(name, np.asarray(value))
        else:
            atoms.info[name] = float(value)


def evaluate_structures(
    frames: Sequence[Structure], calculator: Calculator, *, stress: bool = True
) -> list[Atoms]:
    """Return copies of the structures with the results of a calculator.

    Parameters
    ----------
    frames
        Structures of ASE or pymatgen; they are left alone.
    calculator
        Any ASE calculator.
    stress
        Compute the stress of those that are periodic in three directions, if the calculator can.
    """
    frames = [to_atoms(frame) for frame in frames]
    if hasattr(calculator, "batch"):
        return _evaluate_batch(frames, calculator, stress)
    results = []
    for frame in frames:
        atoms = frame.copy()
        calculator.reset()  # each result is that of its structure alone, not of a path to it
        atoms.calc = calculator
        if stress and atoms.pbc.all() and "stress" in calculator.implemented_properties:
            atoms.get_stress()  # first: the same evaluation gives energy and forces
        atoms.get_forces()
        results.append(snapshot(atoms))
    return results


def _evaluate_batch(frames: Sequence[Atoms], calculator: Any, stress: bool) -> list[Atoms]:
    """Do the same with a calculator that takes many structures at once."""
    copies = [frame.copy() for frame in frames]
    for atoms, results in zip(copies, calculator.batch(frames, stress=stress), strict=True):
        kept = {name: value for name, value in results.items() if name in RESULTS}
        atoms.calc = SinglePointCalculator(atoms, **kept)
    return copies


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


def water_box(n_molecules: int = 64, density: float = 1.0, seed: int = 0) -> Atoms:
    """Return a periodic cube of water molecules: sites of a lattice, random orientations.

    The molecules stand on the cubic lattice that keeps them farthest apart, each turned to the
    best of many random orientations, so that no two atoms of different molecules collide and
    dynamics can start at once. It is an ordered start, not a liquid: equilibrate it.

    Parameters
    ----------
    n_molecules
        Number of molecules. m³, 2m³ and 4m³ fill a lattice; others leave sites empty.
    density
        Mass density in g/cm³.
    seed
        Same seed, same box.

    Raises
    ------
    ValueError
        If `n_molecules` or `density` is not positive, or the box would be too dense to start from.
    """
    if n_molecules < 1 or not density > 0:
        raise ValueError(
            f"n_molecules and density (g/cm³) must be positive, got {n_molecules} and {density}"
        )
    rng = np.random.default_rng(seed)
    water = molecule("H2O")
    water.positions -= water.positions[0]
    volume_of_one = water.get_masses().sum() / density * GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM
    length = (n_molecules * volume_of_one) ** (1 / 3)
    fractions, spacing = _lattice_sites(n_molecules)
    if n_molecules > 1 and spacing * length < SMALLEST_OXYGEN_DISTANCE:
        raise ValueError(
            f"density {density} g/cm³ puts {n_molecules} molecules {spacing * length:.2f} Å apart; "
            f"at least {SMALLEST_OXYGEN_DISTANCE} Å are needed: lower the density"
        )
    chosen = np.sort(rng.permutation(len(fractions))[:n_molecules])
    centres = fractions[chosen] * length
    positions = _orient(centres, water.positions, length, rng)
    symbols = list(water.symbols) * n_molecules
    return Atoms(symbols, positions.reshape(-1, 3), cell=[length] * 3, pbc=True)


def _lattice_sites(n_sites: int) -> tuple[np.ndarray, float]:
    """Sites in a unit cube (at least `n_sites`), and their spacing, of the roomiest lattice."""

    def spacing_and_repeats(basis: np.ndarray, spacing: float) -> tuple[float, int]:
        repeats = int(np.ceil(round((n_sites / len(basis)) ** (1 / 3), 9)))
        return spacing / repeats, repeats

    candidates = map(spacing_and_repeats, LATTICES, LATTICE_SPACINGS)
    (spacing, repeats), basis = max(
        zip(candidates, LATTICES, strict=True), key=lambda pair: pair[0][0]
    )
    corners = np.stack(np.meshgrid(*[np.arange(repeats)] * 3, indexing="ij"), axis=-1)
    return ((corners.reshape(-1, 1, 3) + basis) / repeats).reshape(-1, 3), float(spacing)


def _orient(
    centres: np.ndarray, shape: np.ndarray, length: float, rng: np.random.Generator
) -> np.ndarray:
    """Turn the molecules one by one to the orientation that keeps neighbours farthest apart."""
    n_trials, n_sweeps = 60, 2
    n_molecules = len(centres)
    turned = Rotation.random(n_molecules, rng=rng).as_matrix()
    positions = centres[:, None] + shape @ turned.transpose(0, 2, 1)
    if n_molecules == 1:
        return positions
    for current in np.tile(np.arange(n_molecules), n_sweeps):
        others = np.delete(positions, current, axis=0).reshape(-1, 3)
        matrices = Rotation.random(n_trials, rng=rng).as_matrix()
        trials = centres[current] + shape @ matrices.transpose(0, 2, 1)
        trials = np.concatenate([positions[current][None], trials])
        vectors = trials[:, :, None] - others
        vectors -= length * np.round(vectors / length)
        closest = np.linalg.norm(vectors, axis=-1).min(axis=(1, 2))
        positions[current] = trials[np.argmax(closest)]
    return positions
