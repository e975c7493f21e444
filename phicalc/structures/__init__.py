"""Structures of ASE and pymatgen: files, results attached to them, and boxes of water."""

from typing import TYPE_CHECKING

from phicalc._exports import lazy_exports
from phicalc.structures.checks import check_structure
from phicalc.structures.dipole import center_of_mass
from phicalc.structures.occupancy import DisorderError, refuse_disorder
from phicalc.structures.pymatgen import Structure, like, to_atoms, to_pymatgen
from phicalc.structures.results import (
    COINCIDENCE_DISTANCE,
    DEVIATIONS,
    RESULTS,
    evaluate_structures,
    largest_force,
    same_structure,
    snapshot,
)

if TYPE_CHECKING:
    from phicalc.structures.formula import formula_of
    from phicalc.structures.molecules import Molecules, find_molecules
    from phicalc.structures.reading import read_structures
    from phicalc.structures.water import (
        LATTICE_SPACINGS,
        LATTICES,
        SMALLEST_OXYGEN_DISTANCE,
        water_box,
    )
    from phicalc.structures.writing import holds_results, write_structures, write_text

__all__ = [
    "COINCIDENCE_DISTANCE",
    "DEVIATIONS",
    "DisorderError",
    "LATTICES",
    "LATTICE_SPACINGS",
    "RESULTS",
    "SMALLEST_OXYGEN_DISTANCE",
    "Molecules",
    "Structure",
    "center_of_mass",
    "check_structure",
    "evaluate_structures",
    "find_molecules",
    "formula_of",
    "holds_results",
    "largest_force",
    "like",
    "read_structures",
    "refuse_disorder",
    "same_structure",
    "snapshot",
    "to_atoms",
    "to_pymatgen",
    "water_box",
    "write_structures",
    "write_text",
]

# ASE's readers, writers and neighbor lists import most of scipy, which a calculator alone does not
# need.
__getattr__, __dir__ = lazy_exports(
    __name__,
    globals(),
    {
        "LATTICES": "phicalc.structures.water",
        "LATTICE_SPACINGS": "phicalc.structures.water",
        "Molecules": "phicalc.structures.molecules",
        "SMALLEST_OXYGEN_DISTANCE": "phicalc.structures.water",
        "find_molecules": "phicalc.structures.molecules",
        "formula_of": "phicalc.structures.formula",
        "holds_results": "phicalc.structures.writing",
        "read_structures": "phicalc.structures.reading",
        "water_box": "phicalc.structures.water",
        "write_structures": "phicalc.structures.writing",
        "write_text": "phicalc.structures.writing",
    },
)
