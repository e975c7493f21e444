"""Boxes of water without collisions; files in and out."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc.structures import (
    evaluate_structures,
    like,
    read_structures,
    snapshot,
    to_atoms,
    to_pymatgen,
    water_box,
    write_structures,
    write_text,
)


def closest(atoms, first: str, second: str) -> float:
    """Smallest distance between atoms of two elements in different molecules, images included."""
    image = np.arange(len(atoms)) // 3
    distances = atoms.get_all_distances(mic=True)
    rows, columns = atoms.symbols == first, atoms.symbols == second
    other = image[:, None] != image
    return float(distances[other & rows[:, None] & columns].min())


@pytest.mark.parametrize("n_molecules", [2, 8, 16, 32, 50, 64, 65, 108])
def test_water_box_can_be_started_at_once(n_molecules):
    atoms = water_box(n_molecules)
    assert str(atoms.symbols.formula.reduce()[0].convert("hill")) == "H2O"
    assert len(atoms) == 3 * n_molecules
    assert closest(atoms, "O", "O") > 2.6
    assert closest(atoms, "O", "H") > 1.7
    assert closest(atoms, "H", "H") > 1.7


def test_64_waters_at_one_gram_per_cc():
    atoms = water_box(64, density=1.0)
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.cell.array, 12.417 * np.eye(3), atol=2e-3)
    inside = atoms.get_all_distances()[0, 1:3]
    np.testing.assert_allclose(inside, 0.969, atol=2e-3)


def test_water_box_is_seeded():
    assert np.array_equal(water_box(8, seed=3).positions, water_box(8, seed=3).positions)
    assert not np.allclose(water_box(8, seed=3).positions, water_box(8, seed=4).positions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_molecules": 0}, "must be positive, got 0"),
        ({"density": -1.0}, "must be positive"),
        ({"density": 4.0}, r"Å apart; at least 2.4 Å are needed: lower the density"),
    ],
)
def test_impossible_boxes_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        water_box(**settings)


def test_structures_go_through_files(tmp_path):
    water = molecule("H2O")
    forces, charges = np.arange(9.0).reshape(3, 3), np.array([-0.8, 0.4, 0.4])
    water.calc = SinglePointCalculator(water, energy=-1.5, forces=forces, charges=charges)
    path = write_structures(tmp_path / "new" / "water.extxyz", [water, water])
    for frame in read_structures(path):
        assert frame.get_potential_energy() == -1.5
        np.testing.assert_allclose(frame.get_forces(), forces)
        np.testing.assert_allclose(frame.get_charges(), charges)
    assert len(read_structures(path)) == 2
    assert len(read_structures(path, "-1")) == 1


def test_json_holds_structure_and_results(tmp_path):
    copper = bulk("Cu")
    (frame,) = evaluate_structures([copper], EMT())
    (record,) = json.loads(write_structures(tmp_path / "cu.json", [frame]).read_text())
    assert record["symbols"] == ["Cu"]
    assert record["cell"] == copper.cell.tolist()
    assert record["energy"] == frame.get_potential_energy()
    np.testing.assert_allclose(record["stress"], frame.get_stress())


@pytest.mark.parametrize("name", ["POSCAR", "box.cif"])
def test_common_formats_are_read(name, tmp_path):
    ase.io.write(tmp_path / name, bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    (atoms,) = read_structures(tmp_path / name)
    assert len(atoms) == 8


def test_missing_and_broken_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no structure file .*nothing.xyz"):
        read_structures(tmp_path / "nothing.xyz")
    (tmp_path / "broken.extxyz").write_text("3\nwhat is this\nO 0 0\n")
    with pytest.raises(ValueError, match=r"cannot read structures ':' from .*broken.extxyz"):
        read_structures(tmp_path / "broken.extxyz")
    path = write_structures(tmp_path / "one.extxyz", [molecule("H2O")])
    with pytest.raises(ValueError, match="holds no structure at index '5:'"):
        read_structures(path, "5:")


def test_snapshot_computes_nothing():
    atoms = bulk("Cu")
    atoms.calc = EMT()
    assert snapshot(atoms).calc.results == {}
    energy = atoms.get_potential_energy()
    copy = snapshot(atoms, step=7)
    atoms.rattle(0.1)
    assert copy.get_potential_energy() == energy
    assert copy.info["step"] == 7
    assert "step" not in atoms.info


def test_evaluation_leaves_the_structures_alone():
    frames = [bulk("Cu"), molecule("CO"), bulk("Cu", a=3.5)]
    results = evaluate_structures(frames, EMT())
    assert all(frame.calc is None for frame in frames)
    assert results[0].get_potential_energy() != results[2].get_potential_energy()
    assert "stress" in results[0].calc.results
    (unstressed,) = evaluate_structures(frames[:1], EMT(), stress=False)
    assert set(unstressed.calc.results) >= {"energy", "forces"}


def test_crystals_and_molecules_go_to_pymatgen_and_back():
    core = pytest.importorskip("pymatgen.core")
    crystal = bulk("NaCl", "rocksalt", a=5.64)
    crystal.rattle(0.1, seed=1)
    structure = to_pymatgen(crystal)
    assert isinstance(structure, core.Structure)
    again = to_atoms(structure)
    assert again.get_chemical_symbols() == crystal.get_chemical_symbols()
    np.testing.assert_allclose(again.positions, crystal.positions, atol=1e-9)
    np.testing.assert_allclose(again.cell, crystal.cell, atol=1e-9)
    assert again.pbc.all()
    ion = molecule("OH")
    ion.info["charge"] = -1.0
    made = to_pymatgen(ion)
    assert isinstance(made, core.Molecule)
    assert made.charge == -1
    back = to_atoms(made)
    np.testing.assert_allclose(back.positions, ion.positions)
    assert back.info["charge"] == -1.0
    assert not back.pbc.any()


def test_slabs_keep_their_open_direction_in_pymatgen():
    pytest.importorskip("pymatgen.core")
    slab = fcc111("Cu", (1, 1, 2), vacuum=4.0)
    back = to_atoms(to_pymatgen(slab))
    assert back.pbc.tolist() == [True, True, False]
    np.testing.assert_allclose(back.positions, slab.positions, atol=1e-9)


def test_functions_take_structures_of_pymatgen():
    core = pytest.importorskip("pymatgen.core")
    structure = to_pymatgen(bulk("Cu", a=3.6))
    (found,) = evaluate_structures([structure], EMT())
    atoms = bulk("Cu", a=3.6)
    atoms.calc = EMT()
    assert found.get_potential_energy() == pytest.approx(atoms.get_potential_energy())
    assert isinstance(like(structure, found), core.Structure)
    assert like(atoms, found) is found


def test_strangers_are_no_structures():
    with pytest.raises(TypeError, match=r"must be ase.Atoms or .* of pymatgen, got str"):
        to_atoms("H2O")


@pytest.mark.parametrize(
    ("name", "form"), [("a.cif", "cif"), ("POSCAR", "vasp"), ("a.xyz", "extxyz")]
)
def test_files_of_crystals_are_written_and_read(name, form, tmp_path):
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    write_structures(tmp_path / "new" / name, [crystal])
    assert ase.io.formats.filetype(str(tmp_path / "new" / name)) == form
    (found,) = read_structures(tmp_path / "new" / name)
    assert found.get_chemical_formula() == "Cl4Na4"
    np.testing.assert_allclose(found.cell.lengths(), 5.64)
    assert found.pbc.all()


def test_texts_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = write_text(tmp_path / "new" / "a.json", "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_text(path, "new")
    assert path.read_text() == "old"


def labelled_copper():
    """Atoms whose info and arrays have names of results, and entries that no file holds."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.info.update({"energy": -5.0, "stress": [1.0, 2, 3, 4, 5, 6], "name": "x\ny", 5: "five"})
    atoms.arrays.update(
        forces=np.ones((4, 3)),
        charge=np.arange(4.0),
        tensor=np.ones((4, 3, 3)),
        residuenames=np.array(["A B", "C", "", "D"]),
    )
    return atoms


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz.gz", "a.traj", "a@1.xyz", "a"])
def test_results_of_labelled_atoms_are_written(name, tmp_path):
    (result,) = evaluate_structures([labelled_copper()], EMT())
    with pytest.warns(UserWarning, match="will not hold every entry") as caught:
        path = write_structures(tmp_path / name, [result, result])
    assert len(caught) == 1
    back = read_structures(path)[-1]
    assert back.get_potential_energy() == result.get_potential_energy()
    np.testing.assert_allclose(back.get_forces(), result.get_forces(), atol=1e-8)
    np.testing.assert_allclose(back.get_stress(), result.get_stress())
    assert back.info["name"] == "x\ny"
    if "traj" not in name:
        assert back.info["input_energy"] == -5.0
        assert np.array_equal(back.arrays["input_forces"], np.ones((4, 3)))
        assert np.array_equal(back.arrays["input_charge"], np.arange(4.0))


@pytest.mark.parametrize("name", ["a.pdb", "a.db", "a.gro"])
def test_results_are_not_written_under_a_name_that_means_another_format(name, tmp_path):
    (result,) = evaluate_structures([bulk("Cu")], EMT())
    with pytest.warns(UserWarning, match="extended XYZ is written, to"):
        path = write_structures(tmp_path / name, [result])
    assert path.name == f"{name}.extxyz"
    assert read_structures(path)[0].get_potential_energy() == result.get_potential_energy()


def test_nothing_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="no structure to write"):
        write_structures(tmp_path / "a.xyz", [])
