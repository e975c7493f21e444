"""Alternative locations in PDB files: atoms that are there twice."""

from io import TextIOBase

from phicalc.structures.occupancy import DisorderError


def refuse_alternatives(file: TextIOBase) -> None:
    """Raise if a PDB file gives several locations for an atom (column altLoc).

    ASE's reader keeps all of them, which puts parts of a molecule there twice.

    Raises
    ------
    DisorderError
        With the atoms that have several locations.
    """
    seen: dict[str, str] = {}
    found: list[str] = []
    for line in file:
        if line.startswith(("MODEL", "END")):
            seen.clear()
        if not line.startswith(("ATOM", "HETATM")) or len(line) < 27:
            continue
        letter, atom = line[16], f"{line[12:16].strip()} of {line[17:27].strip()}"
        first = seen.setdefault(atom, letter)
        if letter != first and letter.strip():
            found.append(f"atom {atom}: locations {first} and {letter}")
    if found:
        raise DisorderError("the PDB file", found)
