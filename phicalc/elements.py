"""Metals and nonmetals."""

_NONMETALS = (
    "H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Te I Xe At Rn".split()  # noqa: SIM905
)


def is_metal(symbol: str) -> bool:
    """Whether an element is a metal: the bonds of its atoms have neither direction nor number.

    Metalloids count as nonmetals.
    """
    return symbol not in _NONMETALS
