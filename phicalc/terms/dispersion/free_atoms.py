"""Dispersion coefficients of free atoms."""

from ase.data import atomic_numbers

from phicalc.units import BOHR, EV_PER_HARTREE

#: C6 of two like free atoms in Hartree Bohr⁶, for the elements 1–86: time-dependent density
#: functional theory (Gould & Bučko, J. Chem. Theory Comput. 12, 3603 (2016)).
_C6 = [
    6.51, 1.47,
    1410, 214, 99.2, 47.9, 25.7, 16.7, 10.2, 6.91,
    1570, 629, 520, 308, 187, 140, 97.1, 67.4,
    3910, 2230, 1570, 1200, 955, 709, 635, 548, 461, 393, 264, 276, 456, 365, 260, 233, 187,
    136,
    4660, 3230, 2600, 1360, 1140, 1030, 939, 809, 708, 628, 341, 405, 643, 715, 504, 471, 389,
    302,
    6660, 5540, 3730, 3480, 3760, 3560, 3340, 3130, 2940, 2340, 2590, 2430, 2280, 2150, 2020,
    1910, 2020, 1040, 887, 757, 663, 584, 522, 470, 427, 268, 509, 534, 513, 424, 351, 408,
]  # fmt: skip


def free_atom_coefficient(symbol: str) -> float:
    """Dispersion coefficient C6 of two like free atoms in eV Å⁶.

    Raises
    ------
    ValueError
        For elements without a value, those beyond radon.
    """
    number = atomic_numbers[symbol]
    if not 0 < number <= len(_C6):
        raise ValueError(
            f"no dispersion coefficient is known for {symbol} (they are for H to Rn): leave "
            "dispersion out, or the element"
        )
    return float(_C6[number - 1] * EV_PER_HARTREE * BOHR**6)
