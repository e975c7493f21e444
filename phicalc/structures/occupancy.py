"""Refuse disordered structures: sites that are partly empty, or shared by several elements."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

#: A site whose occupancy differs from 1 by less than this is full.
TOLERANCE = 1e-3
#: Arrays in which ASE's readers (PDB, prismatic, muSTEM) keep the occupancy of each atom.
_ARRAYS = ("occupancy", "occupancies")
#: Disordered sites that an error message lists.
_LISTED = 6


class DisorderError(ValueError):
    """A structure has sites that are partly empty, or shared by several elements."""

    def __init__(self, source: str, sites: Sequence[str]):
        shown = "; ".join(sites[:_LISTED])
        more = f"; and {len(sites) - _LISTED} more" if len(sites) > _LISTED else ""
        super().__init__(
            f"{source} is disordered: {shown}{more}. An energy needs exactly one atom on every "
            "site: make an ordered structure (choose an element or a vacancy for each site, in a "
            "supercell if need be), and remove the occupancies (atoms.info, atoms.arrays)"
        )


def refuse_disorder(
    atoms: Atoms, source: str = "the structure", labels: Sequence[str] = ()
) -> None:
    """Raise if ``info`` or arrays of the atoms give a site another occupancy than 1.

    Readers of ASE keep one atom of such a site, as if it were full: its energy would be that of
    another material. In arrays 0 means "not known", as in PDB files of other programs.

    Parameters
    ----------
    atoms
        The structure, with ``info["occupancy"]`` as ASE's CIF reader sets it: for each site the
        occupancy of every element.
    source
        Where the structure comes from, for the message.
    labels
        Names of the sites, for the message.

    Raises
    ------
    DisorderError
        If a site is partly occupied or shared, with the sites and their occupancies.
    """
    if "occupancy" not in atoms.info and not any(name in atoms.arrays for name in _ARRAYS):
        return
    sites = list(dict.fromkeys([*_shared_sites(atoms, labels), *_partial_atoms(atoms)]))
    if sites:
        raise DisorderError(source, sites)


def is_full(species: Mapping[str, Any]) -> bool:
    """Whether exactly one element occupies a site, and wholly; ``?`` and ``.`` mean 1 in a CIF."""
    values = [1.0 if value in ("?", ".", None) else value for value in species.values()]
    try:
        occupied = [float(value) for value in values]
    except (TypeError, ValueError):
        return False
    return len(occupied) == 1 and abs(occupied[0] - 1) < TOLERANCE


def _shared_sites(atoms: Atoms, labels: Sequence[str]) -> Iterator[str]:
    """Describe the sites of ``info["occupancy"]`` that are not full."""
    occupancy = atoms.info.get("occupancy")
    if not isinstance(occupancy, Mapping):
        return
    kinds = atoms.arrays.get("spacegroup_kinds", np.arange(len(atoms)))
    for site, species in occupancy.items():
        if not isinstance(species, Mapping) or is_full(species):
            continue
        shares = ", ".join(f"{symbol} {value}" for symbol, value in sorted(species.items()))
        number = int(site) if str(site).isdigit() else -1
        members = np.flatnonzero(kinds == number)
        where = f"site {labels[number] if 0 <= number < len(labels) else site}"
        if len(members) and atoms.cell.rank == 3:
            place = atoms.cell.scaled_positions(atoms.positions[members[0]]) % 1.0
            where += f" at ({', '.join(f'{x:.4g}' for x in place.round(4) % 1.0)})"
        yield f"{where}: {shares}"


def _partial_atoms(atoms: Atoms) -> Iterator[str]:
    """Describe the atoms whose occupancy in an array is a fraction."""
    for name in _ARRAYS:
        values = atoms.arrays.get(name)
        if values is None or values.ndim != 1 or values.dtype.kind not in "fiu":
            continue
        partial = (values > TOLERANCE) & (np.abs(values - 1) > TOLERANCE) | (values < 0)
        for atom in np.flatnonzero(partial):
            yield f"atom {atom} ({atoms.symbols[atom]}): {values[atom]:g}"
