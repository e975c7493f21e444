"""Refuse arrays of atoms that do not describe a structure."""

from ase import Atoms
from ase.data import chemical_symbols

from phicalc.structures.occupancy import refuse_disorder


def check_structure(atoms: Atoms) -> None:
    """Raise unless the arrays of atoms describe one structure.

    ASE checks none of them when they are set (``atoms.arrays``, ``atoms.set_array``).

    Raises
    ------
    ValueError
        If atomic numbers are no integers or unknown, positions no real coordinates of shape
        (n_atoms, 3), or a site is disordered.
    """
    numbers, positions = atoms.arrays["numbers"], atoms.arrays["positions"]
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise ValueError(
            "atomic numbers must be integers, one for each atom, got "
            f"{numbers.dtype} of shape {numbers.shape}: set atoms.numbers to an array of int"
        )
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(chemical_symbols):
        raise ValueError(
            f"atomic numbers must lie between 0 and {len(chemical_symbols) - 1}, got "
            f"{numbers.min()} … {numbers.max()}"
        )
    if positions.dtype.kind not in "fiu" or positions.shape != (len(numbers), 3):
        raise ValueError(
            f"positions must be real numbers of shape ({len(numbers)}, 3) in Å, got "
            f"{positions.dtype} of shape {positions.shape}"
        )
    refuse_disorder(atoms)
