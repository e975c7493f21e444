"""Properties of the elements from which charge equilibration starts."""

from ase.data import atomic_numbers, covalent_radii

# Pauling electronegativities of the elements 1–94 (CRC Handbook of Chemistry and Physics, 97th
# ed., section 9). None where no value exists.
_PAULING = [
    2.20, None,
    0.98, 1.57, 2.04, 2.55, 3.04, 3.44, 3.98, None,
    0.93, 1.31, 1.61, 1.90, 2.19, 2.58, 3.16, None,
    0.82, 1.00, 1.36, 1.54, 1.63, 1.66, 1.55, 1.83, 1.88, 1.91, 1.90, 1.65, 1.81, 2.01, 2.18,
    2.55, 2.96, 3.00,
    0.82, 0.95, 1.22, 1.33, 1.60, 2.16, 1.90, 2.20, 2.28, 2.20, 1.93, 1.69, 1.78, 1.96, 2.05,
    2.10, 2.66, 2.60,
    0.79, 0.89, 1.10, 1.12, 1.13, 1.14, None, 1.17, None, 1.20, None, 1.22, 1.23, 1.24, 1.25,
    None, 1.27, 1.30, 1.50, 2.36, 1.90, 2.20, 2.20, 2.28, 2.54, 2.00, 1.62, 2.33, 2.02, 2.00,
    2.20, None,
    0.70, 0.90, 1.10, 1.30, 1.50, 1.38, 1.36, 1.28,
]  # fmt: skip

#: Electronegativity (Pauling) taken for elements without a value: that of hydrogen.
_DEFAULT_PAULING = 2.20

#: Curium, the last element whose covalent radius is tabulated.
_LAST_RADIUS = 96


def electronegativity(symbol: str) -> float:
    """Mulliken-scale electronegativity in eV: ``χ = χ_Pauling/0.336 + 0.615``.

    A starting value for training; the relation between the scales is that of Bratsch,
    J. Chem. Educ. 65, 34 (1988).
    """
    number = atomic_numbers[symbol]
    pauling = _PAULING[number - 1] if number <= len(_PAULING) else None
    return (pauling or _DEFAULT_PAULING) / 0.336 + 0.615


def covalent_radius(symbol: str) -> float:
    """Covalent radius in Å (Cordero et al., Dalton Trans. 2008, 2832), as in `ase.data`.

    Raises
    ------
    ValueError
        For elements whose radius is not known.
    """
    number = atomic_numbers[symbol]
    if not 0 < number <= _LAST_RADIUS:  # ase.data fills the table up with a default
        raise ValueError(f"no covalent radius is known for {symbol}: it cannot carry a charge here")
    return float(covalent_radii[number])
