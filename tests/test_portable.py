"""Structures that survive their files: what comes back, what is renamed, what is dropped."""

from __future__ import annotations

import datetime

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLengths
from ase.spacegroup import crystal

from phicalc.structures.comparison import differences
from phicalc.structures.portable import portable, translate, warn_of_changes

FORMATS = ("extxyz", "traj")


def water() -> Atoms:
    """Return water with results."""
    atoms = molecule("H2O", cell=[5, 6, 7], pbc=True)
    atoms.calc = SinglePointCalculator(
        atoms, energy=-1.0, forces=np.ones((3, 3)), charges=[0.1, 0.2, -0.3], dipole=[0, 0, 1.0],
        stress=np.arange(6.0),
    )  # fmt: skip
    return atoms


def reread(atoms: Atoms, path, file_format: str) -> Atoms:
    ase.io.write(path, atoms, format=file_format)
    return ase.io.read(path, format=file_format)


#: Values of ``info`` that come back as they are.
KEPT = {
    "line breaks": "a\nb\r\tc\u2028d", "quotes": "say \"x\" 'y'", "backslash": "C:\\new\\t",
    "equals": "a=b", "digits": "001", "like a boolean": "T", "empty": "", "JSON": "_JSON x",
    "braces": "{x} [y]", "unicode": "ü∑", "none": None, "nan": np.nan, "infinite": np.inf,
    "nested": {"a": {"b": [1, 2.5, None]}}, "one number in an array": np.array([5.0]),
    "matrix": np.eye(2), "3-d": np.zeros((2, 2, 2)), "empty list": [], "texts": ["a", "b c"],
    "booleans": [True, False], "tuple": (1, 2.5), "large": 2**70, "float32": np.float32(0.1),
    "NumPy boolean": np.bool_(False), "NumPy integer": np.int64(4), "charge": -1.0,
}  # fmt: skip


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", KEPT)
def test_values_of_info_come_back(name, file_format, tmp_path):
    atoms = water()
    atoms.info["x"] = KEPT[name]
    found = portable(atoms, file_format)
    assert found.changes == ()
    back = reread(found.atoms, tmp_path / "x", file_format)
    assert differences(atoms, back) == []
    np.testing.assert_equal(np.array(back.info["x"]), np.array(KEPT[name]))


#: Entries whose name means something else in extended XYZ, or that is none.
RENAMED = {
    "energy": ("info", "energy", 1.0, "input_energy"),
    "stress as a list": ("info", "stress", [1, 2, 3, 4, 5, 6], "input_stress"),
    "stress as a matrix": ("info", "stress", np.eye(3), "input_stress"),
    "virial as a list": ("info", "virial", list(range(9)), "input_virial"),
    "dipole": ("info", "dipole", np.zeros(3), "input_dipole"),
    "integer key": ("info", 5, 3, "5"),
    "tuple as a key": ("info", (1, 2), "t", "1_2"),
    "equals in the key": ("info", "a=b", 2, "a_b"),
    "Lattice": ("info", "Lattice", 5, "input_Lattice"),
    "pbc": ("info", "pbc", "T", "input_pbc"),
    "Properties": ("info", "Properties", "x", "input_Properties"),
    "charge": ("arrays", "charge", np.ones(3), "input_charge"),
    "charges": ("arrays", "charges", np.ones(3), "input_charges"),
    "forces": ("arrays", "forces", np.zeros((3, 3)), "input_forces"),
    "magmoms": ("arrays", "magmoms", np.ones(3), "input_magmoms"),
    "Z": ("arrays", "Z", np.arange(3), "input_Z"),
    "species": ("arrays", "species", np.array(["x", "y", "z"]), "input_species"),
    "pos": ("arrays", "pos", np.zeros((3, 3)), "input_pos"),
    "blank in a name": ("arrays", "a b", np.ones(3), "a_b"),
    "colon in a name": ("arrays", "a:b", np.ones(3), "a_b"),
}


@pytest.mark.parametrize("case", RENAMED)
def test_names_with_another_meaning_are_changed_and_that_is_said(case, tmp_path):
    kind, name, value, expected = RENAMED[case]
    atoms = water()
    getattr(atoms, kind)[name] = value
    found = portable(atoms)
    assert found.changes == (f"{kind}[{name!r}] is written as {kind}[{expected!r}]",)
    back = reread(found.atoms, tmp_path / "x", "extxyz")
    np.testing.assert_array_equal(getattr(back, kind)[expected], value)
    assert back.get_potential_energy() == -1.0
    np.testing.assert_allclose(back.get_charges(), [0.1, 0.2, -0.3])
    assert name in getattr(atoms, kind)  # the structure itself stays


#: Entries that extended XYZ cannot hold.
DROPPED = {
    "object": ("info", object()), "set": ("info", {1}), "complex": ("info", 1j),
    "bytes": ("info", b"ab"), "date": ("info", datetime.date(2026, 1, 1)),
    "blank names": ("arrays", np.array(["", "", ""])),
    "some blank": ("arrays", np.array(["HOH", "", "HOH"])),
    "blanks inside": ("arrays", np.array(["A B", "C", "D"])),
    "padded": ("arrays", np.array(["HOH ", "HOH ", "HOH "])),
    "3-d array": ("arrays", np.zeros((3, 2, 2))),
    "mixed objects": ("arrays", np.array([1, "a", None], dtype=object)),
    "complex array": ("arrays", np.ones(3) * 1j),
    "beyond 32 bits": ("arrays", np.array([2**40] * 3)),
    "no columns": ("arrays", np.ones((3, 0))),
}  # fmt: skip


@pytest.mark.parametrize("case", DROPPED)
def test_entries_that_no_file_holds_are_dropped_and_that_is_said(case, tmp_path):
    kind, value = DROPPED[case]
    atoms = water()
    getattr(atoms, kind)["x"] = value
    found = portable(atoms)
    assert found.changes == (f"{kind}['x'] is dropped (extxyz cannot hold it)",)
    assert differences(water(), reread(found.atoms, tmp_path / "x", "extxyz")) == []


ARRAYS = {
    "objects": np.array(["a", "b", "c"], dtype=object),
    "numbers as objects": np.array([1, 2, 3], dtype=object),
    "unsigned": np.arange(3, dtype=np.uint8),
    "booleans": np.array([True, False, True]),
    "nan": np.array([1, np.nan, 2]),
    "float32": np.full(3, 0.1, np.float32),
    "unicode": np.array(["é", "ü", "ß"]),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_come_back(case, tmp_path):
    atoms = water()
    atoms.arrays["x"] = ARRAYS[case]
    found = portable(atoms)
    assert found.changes == ()
    back = reread(found.atoms, tmp_path / "x", "extxyz").arrays["x"]
    assert np.array_equal(back, ARRAYS[case].tolist(), equal_nan=case == "nan") or np.allclose(
        back, ARRAYS[case].astype(float), atol=1e-8
    )


@pytest.mark.parametrize("file_format", FORMATS)
def test_everything_at_once(file_format, tmp_path):
    atoms = water()
    for number, value in enumerate([*KEPT.values()][::4]):
        atoms.info[number] = value
    for kind, name, value, _ in RENAMED.values():
        getattr(atoms, kind)[name] = value
    atoms.info |= {"info in JSON": "a\nb"}
    atoms.arrays |= {f"y{n}": value for n, (kind, value) in enumerate(DROPPED.values())
                     if kind == "arrays"}  # fmt: skip
    atoms.arrays |= {"u": np.ones((3, 2)), "u0": np.zeros(3)}  # their columns share a name
    translation = translate(atoms, file_format)
    back = reread(translation.apply(atoms), tmp_path / "x", file_format)
    assert translation.lost(atoms, back) == []
    back.arrays["positions"][1] += 1e-6
    assert translation.lost(atoms, back) == ["positions"]


def test_results_that_files_cannot_hold_are_dropped(tmp_path):
    atoms = water()
    atoms.calc.results["born_effective_charges"] = np.zeros((3, 3, 3))
    found = portable(atoms)
    assert found.changes == (
        "results['born_effective_charges'] is dropped (extxyz cannot hold it)",
    )
    assert differences(water(), reread(found.atoms, tmp_path / "x", "extxyz")) == []


def test_own_trajectories_and_initial_charges(tmp_path):
    """A .traj file takes results only from a calculator that knows the initial charges."""
    atoms = water()
    atoms.set_initial_charges([1.0, 0.0, -1.0])
    found = portable(atoms, "traj")
    assert found.changes == ()
    assert differences(found.atoms, reread(found.atoms, tmp_path / "x", "traj")) == []


def test_crystals_of_ase_need_no_change(tmp_path):
    atoms = crystal(["Na", "Cl"], [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225,
                    cellpar=[5.64, 5.64, 5.64, 90, 90, 90])  # fmt: skip
    found = portable(atoms)
    assert found.changes == ()
    assert reread(found.atoms, tmp_path / "x", "extxyz").info["spacegroup"] == "F m -3 m"


def test_constraints_without_a_column_are_named(tmp_path):
    atoms = water()
    atoms.set_constraint([FixAtoms([0]), FixBondLengths([(1, 2)])])
    assert portable(atoms).changes == ("constraints FixBondLengths are not written",)
    assert portable(atoms, "traj").changes == ()


def test_translations_hold_for_later_frames():
    atoms = water()
    atoms.info["energy"] = 4.0
    later = water()
    later.positions += 1.0
    later.info |= {"energy": 4.0, "new": 5}
    frame = translate(atoms).apply(later)
    assert frame.info == {"input_energy": 4.0}
    assert np.array_equal(frame.positions, later.positions)


def test_structures_that_cannot_be_written_at_all_are_refused():
    atoms = water()
    atoms.info["energy"] = 1.0
    atoms.positions[1] = 1e300  # more digits than a column has, but as many as needed
    assert portable(atoms).changes
    atoms.cell = np.full((3, 3), 1e200) * np.eye(3)
    assert portable(atoms).changes
    with pytest.raises(ValueError, match="cannot be written as bogus"):
        portable(atoms, "bogus")


def test_changes_are_one_warning():
    with pytest.warns(UserWarning, match="run will not hold every entry.*: a; b$") as caught:
        warn_of_changes(("a", "b"), "run")
    assert len(caught) == 1
    warn_of_changes((), "run")
