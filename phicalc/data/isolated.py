"""Isolated atoms in a data set: energies of the elements, not structures to train on."""

from collections.abc import Sequence

from phicalc.data.frames import LabelledAtoms

#: Values of ``info["config_type"]``, in lower case and without separators, that mark one.
_MARKS = ("isolatedatom", "isolatedatoms")


def without_isolated_atoms(
    frames: Sequence[LabelledAtoms],
) -> tuple[list[LabelledAtoms], list[LabelledAtoms]]:
    """Divide frames into structures and isolated atoms.

    An isolated atom is a neutral frame of one atom with ``config_type=IsolatedAtom`` in ``info``.

    Returns
    -------
    structures, atoms
        In the order of `frames`.
    """
    atoms = [frame for frame in frames if _is_isolated(frame)]
    return [frame for frame in frames if not _is_isolated(frame)], atoms


def _is_isolated(frame: LabelledAtoms) -> bool:
    mark = "".join(c for c in str(frame.atoms.info.get("config_type", "")).lower() if c.isalpha())
    return mark in _MARKS and len(frame.atoms) == 1 and frame.total_charge == 0


def energies_of_elements(atoms: Sequence[LabelledAtoms]) -> dict[str, float]:
    """Return the energy in eV of each element that has an isolated atom.

    Raises
    ------
    ValueError
        If an atom has no energy, or two of one element have different energies.
    """
    found: dict[str, tuple[float, str]] = {}
    for frame in atoms:
        symbol, energy = frame.atoms.symbols[0], float(frame.labels.energy)
        if energy != energy:
            raise ValueError(
                f"{frame.origin}: this isolated atom of {symbol} has no energy; add it, or remove "
                "the frame"
            )
        other, origin = found.setdefault(symbol, (energy, frame.origin))
        if abs(other - energy) > 1e-6:
            raise ValueError(
                f"{frame.origin}: the isolated atom of {symbol} has an energy of {energy} eV, that "
                f"of {origin} {other} eV; keep one of them"
            )
    return {symbol: energy for symbol, (energy, _) in sorted(found.items())}
