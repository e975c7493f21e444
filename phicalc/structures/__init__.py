"""Structures of ASE and pymatgen: files, results attached to them, and boxes of water."""

from phicalc.structures.files import read_structures, write_structures, write_text
from phicalc.structures.pymatgen import Structure, like, to_atoms, to_pymatgen
from phicalc.structures.results import (
    COINCIDENCE_DISTANCE,
    DEVIATIONS,
    RESULTS,
    evaluate_structures,
    same_structure,
    snapshot,
)
from phicalc.structures.water import LATTICE_SPACINGS, LATTICES, SMALLEST_OXYGEN_DISTANCE, water_box

__all__ = [
    "COINCIDENCE_DISTANCE",
    "DEVIATIONS",
    "LATTICES",
    "LATTICE_SPACINGS",
    "RESULTS",
    "SMALLEST_OXYGEN_DISTANCE",
    "Structure",
    "evaluate_structures",
    "like",
    "read_structures",
    "same_structure",
    "snapshot",
    "to_atoms",
    "to_pymatgen",
    "water_box",
    "write_structures",
    "write_text",
]
