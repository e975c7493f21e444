"""Names of elements and of their pairs; metals and nonmetals."""

_NONMETALS = (
    "H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Te I Xe At Rn".split()  # noqa: SIM905
)


def is_metal(symbol: str) -> bool:
    """Whether an element is a metal: the bonds of its atoms have neither direction nor number.

    Metalloids count as nonmetals.
    """
    return symbol not in _NONMETALS


def symbols_of_pair(name: str) -> tuple[str, str]:
    """Return the symbols in the name of a pair of elements, such as ``H-O``.

    Raises
    ------
    ValueError
        If it names no two.
    """
    if name.count("-") != 1:
        raise ValueError(f"'nearest_distances' must name pairs such as 'H-O', got {name!r}")
    first, second = name.split("-")
    return first, second
