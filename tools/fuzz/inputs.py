"""Files that are not what their names say: the malformed inputs of the command line."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

_PLAIN = "3\n{}\nO 0 0 0.12\nH 0 0.76 -0.48\nH 0 -0.76 -0.48\n"
_BOX = 'Lattice="9 0 0 0 9 0 0 0 9" pbc="T T T"'
_FRAGMENTS = "Properties=species:S:1:pos:R:3:fragments:R:2 fragment_charges=0"
_LABELS = "Properties=species:S:1:pos:R:3:forces:R:3"
_FORCES = "3\n{}\nO 0 0 0.12 {} 0 0\nH 0 0.76 -0.48 0 0 0\nH 0 -0.76 -0.48 0 0 0\n"
_CIF = """data_x
_cell_length_a {a}
_cell_length_b 5.2
_cell_length_c 5.2
_cell_angle_alpha {alpha}
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{sites}
"""
_PDB = "ATOM  {serial:>5} {name:^4} {residue:>3} A{number:>4}    {x:8.3f}{y:8.3f}{z:8.3f}{end}\n"


class Input(NamedTuple):
    """A file for the command line."""

    name: str
    content: bytes
    must_refuse: bool = False
    """Whether a result without a word would be wrong."""


def _water(comment: str = "", name: str = "in.xyz", wrong: bool = False) -> Input:
    return Input(name, _PLAIN.format(comment).encode(), wrong)


def _edited(old: str, new: str, wrong: bool = False) -> Input:
    return Input("in.xyz", _PLAIN.format("").replace(old, new).encode(), wrong)


def _two(comment: str, columns: tuple[str, str] = ("", ""), wrong: bool = False) -> Input:
    """Return an atom of oxygen and one of hydrogen with further columns."""
    text = f"2\n{comment}\nO 0 0 0 {columns[0]}\nH 0 0 1 {columns[1]}\n"
    return Input("in.xyz", text.encode(), wrong)


def _poscar(scale: int = 1, counts: str = "1 2", wrong: bool = False) -> Input:
    return Input("POSCAR", _POSCAR.format(scale=scale, counts=counts).encode(), wrong)


def _far() -> Input:
    comment = 'Lattice="9 0 0 0 9 0 0 0 9" pbc="T F F"'
    return Input("in.xyz", _PLAIN.format(comment).replace("-0.76", "1e7").encode())


def _json(rng: np.random.Generator) -> Input:
    return Input("in.json", (b"{}", b"[]", b"null", b'{"1": {}}', b"{")[rng.integers(5)], True)


def _labelled(comment: str, force: str = "0.1", wrong: bool = False) -> Input:
    return Input("in.xyz", _FORCES.format(f"{_LABELS} {comment}", force).encode(), wrong)


_NA, _CL = "Na1 Na 0 0 0 1.0", "Cl1 Cl 0.5 0.5 0.5 1.0"
_HALVES = "Na1 Na 0 0 0 0.5\nLi1 Li 0 0 0 0.5"


def _cif(first: str = _NA, a: str = "5.2", alpha: str = "90", wrong: bool = False) -> Input:
    return Input("in.cif", _CIF.format(a=a, alpha=alpha, sites=f"{first}\n{_CL}").encode(), wrong)


def _pdb(residue: str, end: str = "  1.00  0.00           {}", names: str = "OHH") -> bytes:
    places = ((0, 0, 0.12), (0, 0.76, -0.48), (0, -0.76, -0.48))
    return "".join(
        _PDB.format(serial=i, name=symbol, residue=residue, number=1, x=x, y=y, z=z,
                    end=end.format(symbol))
        for i, (symbol, (x, y, z)) in enumerate(zip(names, places, strict=True))
    ).encode()  # fmt: skip


def _truncated_gzip(rng: np.random.Generator) -> Input:
    whole = gzip.compress((_PLAIN.format("") * 200).encode(), mtime=0)
    return Input("in.xyz.gz", whole[: int(rng.integers(1, len(whole)))], True)


def _garbage(rng: np.random.Generator) -> Input:
    name = ("in.xyz", "in.cif", "in.traj", "in.pdb", "POSCAR", "in.json", "in.db", "in.gro",
            "in.extxyz", "in.data", "in.vasp", "in.xsf", "noending")[rng.integers(13)]  # fmt: skip
    return Input(name, rng.bytes(int(rng.integers(0, 400))), True)


def _flipped(rng: np.random.Generator) -> Input:
    """Flip one byte of a good file (which may stay good)."""
    content = bytearray(_FORCES.format(f"{_BOX} {_LABELS} energy=-14.2", "0.1").encode())
    content[rng.integers(len(content))] = int(rng.integers(256))
    return Input("in.xyz", bytes(content))


def _cut(rng: np.random.Generator) -> Input:
    content = _FORCES.format(f"{_BOX} {_LABELS} energy=-14.2", "0.1").encode()
    return Input("in.xyz", content[: int(rng.integers(len(content)))])


_POSCAR = "x\n{scale}\n9 0 0\n0 9 0\n0 0 9\nO H\n{counts}\nDirect\n0 0 0\n.1 0 0\n0 .1 0\n"

#: What may be wrong with a file, by the word under which failures are grouped.
INPUTS: dict[str, Callable[[np.random.Generator], Input]] = {
    "good": lambda r: _water(),
    "good box": lambda r: _water(_BOX),
    "labelled": lambda r: _labelled(f"{_BOX} energy=-14.2"),
    "huge count": lambda r: Input("in.xyz", b"999999999\n\nO 0 0 0\n", True),
    "huge count extxyz": lambda r: Input("in.extxyz", b"999999999\n\nO 0 0 0\n", True),
    "larger count": lambda r: Input("in.xyz", b"99999\n\nO 0 0 0\nH 0 0 1\nH 0 1 0\n", True),
    "negative count": lambda r: Input("in.xyz", b"-3\n\nO 0 0 0\n", True),
    "zero atoms": lambda r: Input("in.xyz", b"0\n\n"),
    "empty": lambda r: Input("in.xyz", b"", True),
    "blank lines": lambda r: Input("in.xyz", b"\n\n\n\n", True),
    "garbage": _garbage,
    "flipped byte": _flipped,
    "cut off": _cut,
    "BOM": lambda r: Input("in.xyz", b"\xef\xbb\xbf" + _PLAIN.format("").encode()),
    "UTF-16": lambda r: Input("in.xyz", _PLAIN.format("").encode("utf-16")),
    "Latin-1": lambda r: Input("in.xyz", _PLAIN.format("name=Köln").encode("latin-1")),
    "CRLF": lambda r: _edited("\n", "\r\n"),
    "NUL": lambda r: Input("in.xyz", _PLAIN.format("a\0b").encode()),
    "truncated gzip": _truncated_gzip,
    "no gzip": lambda r: Input("in.xyz.gz", _PLAIN.format("").encode(), True),
    "name with @": lambda r: _water(name="in@300K.xyz"),
    "name with blanks": lambda r: _water(name="my water ä.xyz"),
    "name with newline": lambda r: _water(name="in\nput.xyz"),
    "name with glob": lambda r: _water(name="in[1]*.xyz"),
    "symbol D": lambda r: _edited("H", "D"),
    "symbol X": lambda r: _edited("O", "X", wrong=True),
    "symbol Qq": lambda r: _edited("O", "Qq", wrong=True),
    "lower case": lambda r: _edited("O", "o"),
    "positions nan": lambda r: _edited("0.12", "nan", wrong=True),
    "positions 1.0D0": lambda r: _edited("0.12", "1.2D-1"),
    "positions ****": lambda r: _edited("0.12", "*****", wrong=True),
    "coincident": lambda r: Input("in.xyz", b"2\n\nO 0 0 0\nH 0 0 0\n", True),
    "far atom": lambda r: _edited("-0.76", "1e7"),
    "far atom in a box": lambda r: _far(),
    "flat cell": lambda r: _water('Lattice="9 0 0 0 9 0 9 9 0" pbc="T T T"', wrong=True),
    "short lattice": lambda r: _water('Lattice="9 0 0 0 9 0" pbc="T T T"', wrong=True),
    "lattice nan": lambda r: _water('Lattice="9 0 0 0 nan 0 0 0 9" pbc="T T T"', wrong=True),
    "pbc words": lambda r: _water('Lattice="9 0 0 0 9 0 0 0 9" pbc="yes no 7"'),
    "charge text": lambda r: _water("charge=one", wrong=True),
    "charge list": lambda r: _water('charge="1 2"', wrong=True),
    "charge nan": lambda r: _water("charge=nan", wrong=True),
    "charge T": lambda r: _water("charge=T"),
    "charge huge": lambda r: _water("charge=1e9"),
    "info newline": lambda r: _water('note="a\\nb" name="" =3'),
    "label -1.0D0": lambda r: _labelled(f"{_BOX} energy=-1.0D0"),
    "label T": lambda r: _labelled(f"{_BOX} energy=T"),
    "label nan": lambda r: _labelled(f"{_BOX} energy=nan"),
    "label text": lambda r: _labelled(f"{_BOX} energy=low"),
    "label list": lambda r: _labelled(f'{_BOX} energy="1 2 3"'),
    "no energy": lambda r: _labelled(_BOX),
    "force text": lambda r: _labelled(f"{_BOX} energy=-14.2", force="x"),
    "force nan": lambda r: _labelled(f"{_BOX} energy=-14.2", force="nan"),
    "force 1.0D0": lambda r: _labelled(f"{_BOX} energy=-14.2", force="1.0D0"),
    "stress of 5": lambda r: _labelled(f'{_BOX} energy=-14.2 stress="1 2 3 4 5"'),
    "columns missing": lambda r: _water(_LABELS, wrong=True),
    "columns doubled": lambda r: _water("Properties=species:S:1:pos:R:3:pos:R:3"),
    "columns nonsense": lambda r: _water("Properties=species:S:1:pos:R:x", wrong=True),
    "array charge": lambda r: _two("Properties=species:S:1:pos:R:3:charge:R:1", ("1", "0")),
    "array fragments": lambda r: _two(_FRAGMENTS, ("1 1", "0 0"), wrong=True),
    "cif good": lambda r: _cif(),
    "cif shared site": lambda r: _cif(_HALVES, wrong=True),
    "cif half-empty site": lambda r: _cif("Na1 Na 0 0 0 0.5", wrong=True),
    "cif occupancy 1(2)": lambda r: _cif("Na1 Na 0 0 0 0.98(2)", wrong=True),
    "cif a = 0": lambda r: _cif(a="0", wrong=True),
    "cif a = ?": lambda r: _cif(a="?", wrong=True),
    "cif angle 180": lambda r: _cif(alpha="180", wrong=True),
    "cif one site": lambda r: _cif(""),
    "pdb good": lambda r: Input("in.pdb", _pdb("HOH")),
    "pdb blank residue": lambda r: Input("in.pdb", _pdb("")),
    "pdb no elements": lambda r: Input("in.pdb", _pdb("HOH", "  1.00  0.00")),
    "pdb short lines": lambda r: Input("in.pdb", _pdb("HOH", "")),
    "pdb occupancy": lambda r: Input("in.pdb", _pdb("HOH", "  0.50  0.00           {}")),
    "poscar good": lambda r: _poscar(),
    "poscar counts": lambda r: _poscar(counts="1"),
    "poscar scale": lambda r: _poscar(scale=0, wrong=True),
    "json": _json,
    "folder": lambda r: Input("folder/", b"", True),
    "missing": lambda r: Input("", b"", True),
}  # fmt: skip


def write_input(folder: Path, made: Input) -> Path:
    """Write the file into a folder; returns its path, which does not exist for "missing"."""
    if not made.name:
        return folder / "missing.xyz"
    path = folder / made.name
    if made.name.endswith("/"):
        path.mkdir()
    else:
        path.write_bytes(made.content)
    return path
