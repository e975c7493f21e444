"""Convert structures between ASE and pymatgen."""

from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell

from phicalc.hints import install_hint
from phicalc.structures.occupancy import TOLERANCE, DisorderError

#: `ase.Atoms`, or a `Structure` or `Molecule` of pymatgen (optional: hence no narrower type).
Structure = Any


def to_atoms(structure: Structure) -> Atoms:
    """Return ASE's atoms of a structure: themselves, or made from pymatgen's objects.

    A net charge that pymatgen's object has been given is found in ``info["charge"]``.

    Raises
    ------
    TypeError
        If it is none of these.
    DisorderError
        If a site of pymatgen's object is partly empty, or shared by several species.
    """
    if isinstance(structure, Atoms):
        return structure
    if not hasattr(structure, "sites"):  # before the import: without pymatgen it cannot be one
        raise _stranger(structure)
    core, adaptor = _pymatgen()
    if not isinstance(structure, core.SiteCollection):
        raise _stranger(structure)
    _refuse_disorder(structure)
    made = adaptor.get_atoms(structure, msonable=False)
    atoms = Atoms(made.symbols, made.positions, cell=made.cell, pbc=made.pbc)
    _keep_isotopes(atoms, structure)
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


def _keep_isotopes(atoms: Atoms, structure: Structure) -> None:
    """Give deuterium and tritium their masses: they are hydrogen to ASE."""
    usual = atoms.get_masses()
    masses = np.array([float(getattr(site.specie, "atomic_mass", 0.0)) for site in structure])
    heavy = (atoms.numbers == 1) & (masses > 1.5)
    if heavy.any():
        atoms.set_masses(np.where(heavy, masses, usual))


def _refuse_disorder(structure: Structure) -> None:
    """Raise for sites of pymatgen's objects that are not exactly one species."""
    shared = [
        f"site {number}: {site.species_string}"
        for number, site in enumerate(structure)
        if len(site.species) != 1 or abs(site.species.num_atoms - 1) > TOLERANCE
    ]
    if shared:
        raise DisorderError("the structure of pymatgen", shared)


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
            f"structures of pymatgen need pymatgen ({error}): {install_hint('materials')}"
        ) from error
    return core, AseAtomsAdaptor
