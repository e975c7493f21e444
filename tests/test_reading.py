"""Files that are read, and files that are refused with the reason."""

from __future__ import annotations

import gzip
import re
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from phicalc.graph import from_ase
from phicalc.structures import DisorderError, check_structure, read_structures, to_atoms

FRAME = "3\nProperties=species:S:1:pos:R:3 {}\nO 0 0 0.1\nH 0 0.76 -0.5\nH 0 -0.76 -0.5\n"
CIF = """data_{name}
_cell_length_a {a}
_cell_length_b {a}
_cell_length_c {a}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma {gamma}
_space_group_IT_number {group}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{column}
{sites}
"""
FULL = "Na1 Na 0 0 0 1.0\nCl1 Cl 0.5 0.5 0.5 1"


def cif(
    path: Path, sites: str, column: str = "_atom_site_occupancy", group: int = 225, gamma: int = 90
) -> Path:
    """Write a CIF of a cubic (or hexagonal) crystal."""
    text = CIF.format(name="x", a=5.6, sites=sites, column=column, group=group, gamma=gamma)
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    """Message of the error that reading a file raises."""
    with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
        read_structures(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("sites", "named"),
    [
        ("Na1 Na 0 0 0 0.5\nLi1 Li 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1", "Na1 at .*Li 0.5, Na 0.5"),
        ("Na1 Na 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1", r"site Na1 at \(0, 0, 0\): Na 0.5"),
        ("Na1 Na 0 0 0 0.5(2)\nCl1 Cl 0.5 0.5 0.5 1", "Na 0.5"),
        ("Na1 Na+ 0 0 0 0.5\nNa2 Na 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1", "Na1 .*Na 0.5"),
        ("Na1 Na 0 0 0 1\nVac1 Xe .25 .25 .25 0\nCl1 Cl 0.5 0.5 0.5 1", "Vac1 .*Xe 0"),
        ("Na1 Na 0 0 0 0.9\nLi1 Li 0 0 0.02 0.1\nCl1 Cl 0.5 0.5 0.5 1", "Na1 .*Li1"),
    ],
    ids=["shared", "half", "uncertain", "valences", "empty", "split"],
)
def test_partial_occupancy_of_a_cif_is_refused(sites, named, tmp_path):
    path = cif(tmp_path / "a.cif", sites)
    with pytest.raises(ValueError, match=f"is disordered: .*{named}"):
        read_structures(path)


def test_disorder_groups_of_a_cif_are_refused(tmp_path):
    sites = "Na1 Na 0 0 0.0 A\nLi1 Li 0 0 0.2 B\nCl1 Cl 0.5 0.5 0.5 ."
    path = cif(tmp_path / "a.cif", sites, "_atom_site_disorder_group", group=1)
    with pytest.raises(ValueError, match="site Na1: disorder group A; site Li1: disorder group B"):
        read_structures(path)


@pytest.mark.parametrize("sites", [FULL, "Na1 Na 0 0 0 ?\nCl1 Cl 0.5 0.5 0.5 ."])
def test_full_sites_of_a_cif_are_read(sites, tmp_path):
    (atoms,) = read_structures(cif(tmp_path / "a.cif", sites))
    assert atoms.get_chemical_formula() == "Cl4Na4"
    assert "occupancy" not in atoms.info
    from_ase(atoms, 3.0)


def test_deuterium_of_a_cif_keeps_its_mass(tmp_path):
    (atoms,) = read_structures(cif(tmp_path / "a.cif", "D1 D 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 1"))
    assert str(atoms.symbols) == "H4Cl4"
    assert atoms.get_masses()[atoms.symbols == "H"] == pytest.approx(2.014, abs=2e-3)


@pytest.mark.parametrize("x", ["0.33 0.67 0", "0.333 0.667 0.25"])
def test_atoms_that_symmetry_puts_on_top_of_each_other_are_refused(x, tmp_path):
    sites = f"Na1 Na {x}\nCl1 Cl 0 0 0.5"
    path = cif(tmp_path / "a.cif", sites, "", group=194, gamma=120)
    with pytest.raises(ValueError, match=r"Na1 and Na1 are 0.0\d\d Å apart once its symmetry"):
        read_structures(path)


def test_two_sites_of_a_cif_at_one_place_are_refused(tmp_path):
    sites = "Na1 Na 0 0 0\nLi1 Li 0 0 0\nCl1 Cl 0.5 0.5 0.5"
    path = cif(tmp_path / "a.cif", sites, "")
    with pytest.warns(UserWarning, match="are equivalent"):  # ASE's, which keeps one of them
        assert "several sites at one place: Li1" in refusal(path)


def test_disordered_atoms_are_refused_when_they_come_from_ase(tmp_path):
    sites = "Na1 Na 0 0 0 0.5\nLi1 Li 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1"
    atoms = ase.io.read(cif(tmp_path / "a.cif", sites))
    with pytest.raises(DisorderError, match="Li 0.5, Na 0.5"):
        from_ase(atoms, 3.0)
    del atoms.info["occupancy"]
    from_ase(atoms, 3.0)


@pytest.mark.parametrize("name", ["occupancy", "occupancies"])
def test_partial_occupancies_of_atoms_are_refused(name):
    atoms = molecule("H2O")
    atoms.set_array(name, np.array([1.0, 0.5, 1.0]))
    with pytest.raises(DisorderError, match=r"atom 1 \(H\): 0.5"):
        check_structure(atoms)
    atoms.arrays[name][1] = 0.0  # programs write it for "not known"
    check_structure(atoms)


PDB = "ATOM  {n:>5}  {name:<3}{alt}HOH A   1    {x:8.3f}{y:8.3f}{z:8.3f}{occ:6.2f}  0.00{s:>12}\n"


def pdb(path: Path, rows: list[tuple[str, str, float]]) -> Path:
    """Write a molecule of water with alternative locations and occupancies."""
    lines = [
        PDB.format(n=n, name=name, alt=alt, x=1.0 * n, y=0.0, z=0.0, occ=occ, s=name[0])
        for n, (name, alt, occ) in enumerate(rows)
    ]
    path.write_text("".join(lines) + "END\n")
    return path


def test_alternative_locations_of_a_pdb_file_are_refused(tmp_path):
    (atoms,) = read_structures(
        pdb(tmp_path / "a.pdb", [("O", " ", 1.0), ("H1", " ", 1.0), ("H2", " ", 0.0)])
    )
    assert atoms.get_chemical_formula() == "H2O"
    half = pdb(tmp_path / "half.pdb", [("O", "A", 0.5), ("O", "B", 0.5), ("H1", " ", 1.0)])
    with pytest.raises(ValueError, match=r"is disordered: atom O of HOH A +1: locations A and B"):
        read_structures(half)
    lone = pdb(tmp_path / "lone.pdb", [("O", " ", 0.4), ("H1", " ", 1.0)])
    with pytest.raises(ValueError, match=r"is disordered: atom 0 \(O\): 0.4"):
        read_structures(lone)


def test_disordered_structures_of_pymatgen_are_refused():
    core = pytest.importorskip("pymatgen.core")
    lattice, places = core.Lattice.cubic(4), [[0, 0, 0], [0.5, 0.5, 0.5]]
    for site in ({"Na": 0.5, "Li": 0.5}, {"Na": 0.5}, {"Fe2+": 0.5, "Fe3+": 0.5}):
        with pytest.raises(DisorderError, match=r"is disordered: site 0: \w+.*0.5"):
            to_atoms(core.Structure(lattice, [site, "Cl"], places))
    heavy = to_atoms(core.Structure(lattice, ["D", "Cl"], places))
    assert heavy.get_masses() == pytest.approx([2.014, 35.45], abs=0.01)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + FRAME.format("").encode(),
        FRAME.format("").encode("utf-16"),
        FRAME.format("name=M\xfcller").encode("latin-1"),
        FRAME.format("name=M\xfcller").encode(),
    ],
    ids=["byte order mark", "utf-16", "latin-1", "utf-8"],
)
@pytest.mark.parametrize("name", ["a.xyz", "a.xyz.gz", "a@1.xyz", "b@c"])
def test_texts_of_any_usual_encoding_and_name_are_read(content, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    if name == "b@c" and content[:1] > b"9":
        pytest.skip("only its content shows that this is XYZ")
    (atoms,) = read_structures(path)
    assert atoms.get_chemical_formula() == "H2O"
    assert atoms.info.get("name", "Müller") == "Müller"


def test_byte_order_marks_are_read_in_other_formats(tmp_path):
    path = tmp_path / "POSCAR"
    path.write_text("rock\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (atoms,) = read_structures(path)
    assert atoms.get_chemical_formula() == "ClNa"


def test_names_with_an_at_sign_are_names_in_every_format(tmp_path):
    atoms = molecule("H2O")
    for name in ("a@0.traj", "a@0.json", "a@b.cif"):
        atoms.cell, atoms.pbc = ([4.0] * 3, True) if name.endswith("cif") else (None, False)
        ase.io.write(tmp_path / name, atoms, format=name.rpartition(".")[2])
        assert len(read_structures(tmp_path / name)[0]) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("999999999\n\nO 0 0 0\n", "number of atoms .* in line 1, got '999999999'"),
        ("99999999\n\nO 0 0 0\n", "should have 99999999 atoms, but the file ends after 1 lines"),
        ("-5\n\nO 0 0 0\n", "number of atoms .* in line 1, got '-5'"),
        (2 * FRAME.format("") + "3\n\nO 0 0 0\n", r"frame 2 \(line 11\) should have 3 atoms"),
        (FRAME.format("") + "\n" + FRAME.format(""), "a blank line ends the structures before"),
        (
            FRAME.format("") + FRAME.format("").replace("H", "D"),
            "frame 1: D is an isotope: write H",
        ),
        (FRAME.format("") + FRAME.format("").replace("H", "Xx"), "frame 1: 'Xx' is not known"),
        (FRAME.format("") + FRAME.format("").replace("0.76", "0.7D0"), "frame 1: .*Fortran's D"),
        (FRAME.format("") + FRAME.format("energy=T"), "structure 1 of .*'energy' .*got True"),
        (FRAME.format("") + FRAME.format("energy=-1.0D0"), "structure 1 of .*'energy'.*-1.0E0"),
        (FRAME.format('stress="1 2 3"'), "frame 0: .*stress"),
    ],
)
def test_malformed_xyz_files_are_refused_with_the_place(text, message, tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text(text)
    start = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        read_structures(path)
    assert "a.xyz" in str(caught.value)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.unknown", FRAME.format("").encode(), "its format is not known"),
        ("a.xyz", b"", "Empty file"),
        ("a.xyz", bytes(range(256)), "number of atoms"),
        ("a.xyz.gz", gzip.compress(1000 * FRAME.format("").encode(), mtime=0)[:60], "ended before"),
        ("a.xyz.gz", FRAME.format("").encode(), "Not a gzipped file"),
        ("a.cif", b"data_x\n_cell_length_a 3\n", "holds no structure"),
        ("a.pdb", b"ATOM hello\n", "cannot read"),
        ("a.json", b'{"a":', "cannot read"),
        ("a.traj", b"- of Ulm", "cannot read"),
        ("a.db", b"SQLite", "not a database"),
        ("POSCAR", b"hello\n", "cannot read"),
    ],
)
def test_damaged_files_are_refused_in_one_line(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    text = refusal(tmp_path / name)
    assert message in text
    assert name in text
    assert "\n" not in text


def test_folders_are_no_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="that is a folder"):
        read_structures(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("numbers", lambda n: n.astype(float), "atomic numbers must be integers.* float64"),
        ("numbers", lambda n: n + 0.5, "atomic numbers must be integers"),
        ("numbers", lambda n: n + 500, "between 0 and 118, got 501 … 508"),
        ("numbers", lambda n: -n, "between 0 and 118"),
        ("positions", lambda p: p[:, :2], r"positions must be real numbers of shape \(3, 3\)"),
        ("positions", lambda p: p.astype(complex), "positions must be real .*complex128"),
    ],
)
def test_arrays_that_are_no_structure_are_refused(name, change, message):
    atoms = molecule("H2O")
    atoms.arrays[name] = change(atoms.arrays[name])
    with pytest.raises(ValueError, match=message):
        from_ase(atoms, 3.0)


def test_integers_and_floats_of_any_width_are_a_structure():
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]], calculator=EMT())
    atoms.arrays["numbers"] = atoms.numbers.astype(np.uint8)
    atoms.arrays["positions"] = atoms.positions.astype(np.float32)
    assert from_ase(atoms, 3.0).n_edges == 2


@pytest.mark.parametrize("name", ["a.xyz", "a.traj", "a.cif", "a.json"])
@pytest.mark.parametrize("index", ["7", "-7"])
def test_an_index_beyond_the_file_is_told_how_many_there_are(name, index, tmp_path):
    ase.io.write(tmp_path / name, [bulk("Cu"), bulk("Cu")])
    with pytest.raises(ValueError, match=rf"holds \d structures?, and none at index '{index}'"):
        read_structures(tmp_path / name, index)
