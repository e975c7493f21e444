"""Read CIF files: every site must hold one whole atom, and none may lie on its own image."""

from io import TextIOBase

import numpy as np
from ase import Atoms
from ase.io.cif import CIFBlock, parse_cif
from ase.neighborlist import neighbor_list

from phicalc.structures.occupancy import DisorderError, refuse_disorder

#: Å: atoms that symmetry brings closer than this are two copies of one.
SMALLEST_DISTANCE = 0.5


def read_cif(file: TextIOBase) -> list[Atoms]:
    """Return the crystals of all blocks of a CIF that hold one.

    Deuterium becomes hydrogen with the mass of deuterium.

    Raises
    ------
    DisorderError
        If a site is partly empty or shared.
    ValueError
        If symmetry puts atoms on top of each other.
    """
    return [_crystal(block) for block in parse_cif(file) if block.has_structure()]


def _crystal(block: CIFBlock) -> Atoms:
    """Return the crystal of a block after checking its sites."""
    source = f"block {block.name!r} of the CIF"
    labels = [str(label) for label in block.get("_atom_site_label", block.get_symbols())]
    groups = block.get("_atom_site_disorder_group", [])
    disordered = [
        f"site {label}: disorder group {group}"
        for label, group in zip(labels, groups, strict=False)
        if str(group) not in (".", "?", "0")
    ]
    atoms = block.get_atoms()
    refuse_disorder(atoms, source, labels)
    if disordered:
        raise DisorderError(source, disordered)
    _refuse_coincidence(atoms, labels, source)
    atoms.info.pop("occupancy", None)  # all are 1: nothing that would go on to other files
    return atoms


def _refuse_coincidence(atoms: Atoms, labels: list[str], source: str) -> None:
    """Raise if sites coincide, or a site nearly coincides with its own image."""
    kinds = atoms.arrays.get("spacegroup_kinds", np.arange(len(atoms)))
    missing = [label for site, label in enumerate(labels) if site not in kinds]
    if missing:  # ASE keeps one of the sites
        raise ValueError(
            f"{source} has several sites at one place: {', '.join(missing)} and another. Keep the "
            "atom that is meant; if the sites share the place, it is disordered"
        )
    first, second, distances = neighbor_list("ijd", atoms, SMALLEST_DISTANCE)
    if not len(first):
        return
    nearest = int(distances.argmin())
    one, other = (labels[kinds[atom]] for atom in (first[nearest], second[nearest]))
    raise ValueError(
        f"{source} puts atoms on top of each other: {one} and {other} are "
        f"{distances[nearest]:.3f} Å apart once its symmetry is applied. Sites on special "
        "positions need their full digits (0.33333, not 0.33)"
    )
