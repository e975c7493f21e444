"""Name a structure by the molecules that it consists of."""

from collections import Counter

from ase import Atoms
from ase.formula import Formula

from phicalc.structures.molecules import find_molecules

#: More kinds of molecules than this are not listed.
MOST_KINDS = 4
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def formula_of(atoms: Atoms) -> str:
    """Return number and formula of each kind of molecule with subscripts: ``64 H₂O``.

    Molecules are groups of bonded atoms, and their formulas are not reduced: acetic acid is
    ``C₂H₄O₂``. Networks without end (crystals, polymers) and single atoms (ions) are named by
    formula units: ``4 NaCl``. A structure of many kinds is named by its composition.
    """
    molecules = find_molecules(atoms)
    counts: Counter[str] = Counter()
    units: Counter[str] = Counter()
    members: list[list[str]] = [[] for _ in molecules.finite]
    for label, symbol in zip(molecules.labels, atoms.symbols, strict=True):
        members[label].append(symbol)
    for symbols, finite in zip(members, molecules.finite, strict=True):
        if finite and len(symbols) > 1:
            counts[_text(Formula.from_list(symbols))] += 1
        else:
            units.update(symbols)
    if units:
        unit, count = Formula.from_dict(dict(units)).reduce()
        counts[_text(unit)] += count
    if not 0 < len(counts) <= MOST_KINDS:
        return _text(atoms.symbols.formula)
    parts = [name if n == 1 else f"{n} {name}" for name, n in sorted(counts.items())]
    return ", ".join(parts)


def _text(formula: Formula) -> str:
    """Write a formula with subscripts; carbon first, or metals first where there is none."""
    order = "hill" if "C" in formula else "metal"
    return str(formula.convert(order)).translate(_SUBSCRIPTS)
