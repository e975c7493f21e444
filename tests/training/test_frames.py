from __future__ import annotations

import gzip
import warnings

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc.data.config import KeysConfig
from phicalc.data.files import file_digest, find_data_file, read_frames
from phicalc.data.frames import label_atoms, warn_of_duplicates


def hydrogen(**results) -> Atoms:
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def test_labels_of_a_file_are_what_ase_reads(carbon_chain):
    frames = read_frames(carbon_chain, KeysConfig(), ["energy", "forces", "charges", "dipole"])
    images = ase.io.read(carbon_chain, ":")
    assert len(frames) == len(images) == 30
    assert sorted({frame.total_charge for frame in frames}) == [0, 1]
    for frame, atoms in zip(frames, images, strict=True):
        assert frame.labels.energy.item() == atoms.get_potential_energy()
        assert np.array_equal(frame.labels.forces, atoms.get_forces())
        assert np.array_equal(frame.labels.charges, atoms.get_charges())
        assert np.array_equal(frame.labels.dipole[0], atoms.get_dipole_moment())
        assert frame.labels.stress.isnan().all()
        assert frame.labels.energy.dtype == torch.float64


def test_compressed_files_are_read(carbon_chain, tmp_path):
    path = tmp_path / "frames.xyz.gz"
    path.write_bytes(gzip.compress(carbon_chain.read_bytes()))
    frames, plain = (read_frames(p, KeysConfig()) for p in (path, carbon_chain))
    assert all(
        torch.equal(a.labels.forces, b.labels.forces) for a, b in zip(frames, plain, strict=True)
    )


def test_labels_under_other_names_are_found():
    atoms = hydrogen()
    atoms.info = {"E": -1.0, "S": np.arange(6.0), "Q": 2}
    atoms.arrays["F"] = np.ones((2, 3))
    keys = KeysConfig(energy="E", forces="F", stress="S", total_charge="Q")
    frame = label_atoms(atoms, keys, ["energy", "forces", "stress"])
    assert frame.labels.energy.item() == -1
    assert frame.labels.forces.sum() == 6
    assert frame.total_charge == 2
    assert frame.labels.stress[0].tolist() == [[0, 5, 4], [5, 1, 3], [4, 3, 2]]  # Voigt order


def test_dipoles_of_ions_are_moved_to_the_centre_of_mass(carbon_chain):
    # xTB refers them to the origin of the coordinates; its charges tell which it is
    keys = KeysConfig(dipole_origin="coordinates")
    for frame, raw in zip(
        read_frames(carbon_chain, keys), read_frames(carbon_chain, KeysConfig()), strict=True
    ):
        from_centre = frame.atoms.positions - frame.atoms.get_center_of_mass()
        by_charges = frame.labels.charges.numpy() @ from_centre
        assert frame.labels.dipole[0].numpy() == pytest.approx(by_charges, abs=0.12)
        if frame.total_charge == 0:
            assert torch.equal(frame.labels.dipole, raw.labels.dipole)


def test_missing_label_names_file_frame_and_key(tmp_path):
    path = tmp_path / "water.xyz"
    ase.io.write(path, [hydrogen(energy=1.0, forces=np.zeros((2, 3))), hydrogen(energy=1.0)])
    with pytest.raises(ValueError, match=r"water.xyz, frame 1: no forces .* 'forces'.*weight"):
        read_frames(path, KeysConfig(), ["energy", "forces"])
    assert read_frames(path, KeysConfig(), ["energy"])[1].labels.forces.isnan().all()


def test_labels_that_are_not_finite_are_refused():
    forces = np.zeros((2, 3))
    forces[1, 2] = np.nan
    with pytest.raises(ValueError, match="frame 7: forces holds NaN"):
        label_atoms(hydrogen(forces=forces), KeysConfig(), origin="frame 7")


def test_labels_of_wrong_shape_are_refused():
    atoms = hydrogen()
    atoms.info["forces"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"forces must have the shape \(2, 3\), got \(3,\)"):
        label_atoms(atoms, KeysConfig())


def test_files_that_are_not_structures_are_refused(tmp_path):
    path = tmp_path / "empty.xyz"
    path.write_text("")
    with pytest.raises(ValueError, match=r"empty.xyz"):
        read_frames(path, KeysConfig())
    path.write_text("not a number\nof atoms\n")
    with pytest.raises(ValueError, match=r"empty.xyz could not be read"):
        read_frames(path, KeysConfig())


def test_truncated_files_are_refused(carbon_chain, tmp_path):
    path = tmp_path / "cut.xyz"
    path.write_text(carbon_chain.read_text()[:5000])
    with pytest.raises(ValueError, match=r"cut.xyz could not be read"):
        read_frames(path, KeysConfig())
    path = tmp_path / "cut.xyz.gz"
    path.write_bytes(gzip.compress(carbon_chain.read_bytes())[:-100])
    with pytest.raises(ValueError, match=r"cut.xyz.gz could not be read"):
        read_frames(path, KeysConfig())


def test_repeated_structures_are_noticed(carbon_chain):
    frames = read_frames(carbon_chain, KeysConfig())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_of_duplicates(frames) == 0
    with pytest.warns(UserWarning, match=r"1 of 31 structures repeat .*frame 3"):
        assert warn_of_duplicates([*frames, frames[3]]) == 1
    charged = frames[3]._replace(total_charge=5.0)
    assert warn_of_duplicates([*frames, charged]) == 0  # another charge is another structure


def test_data_files_are_looked_for_in_the_documented_order(tmp_path, monkeypatch):
    beside, here, variable = (tmp_path / name for name in ("beside", "here", "variable"))
    for folder in (beside, here, variable):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("PHICALC_DATA", str(variable))
    with pytest.raises(FileNotFoundError, match=r"'a.xyz' was not found.*beside.*PHICALC_DATA"):
        find_data_file("a.xyz", beside)
    for folder in (variable, here, beside):  # each takes precedence over those before
        (folder / "a.xyz").touch()
        assert find_data_file("a.xyz", beside).resolve() == folder / "a.xyz"
    assert find_data_file(variable / "a.xyz", beside) == variable / "a.xyz"


def test_digest_is_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f").startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize("key", ["external_field", "fragment_charges", "electrode_potential"])
def test_labels_of_other_surroundings_are_refused(key):
    atoms = hydrogen(energy=1.0)
    atoms.info[key] = np.zeros(3)
    label_atoms(atoms, KeysConfig())
    atoms.info[key] = np.array([0.0, 0.1, 0.0])
    with pytest.raises(ValueError, match=f"structure: info.'{key}'.* without fields"):
        label_atoms(atoms, KeysConfig())


def test_charges_under_another_name_are_warned_of(tmp_path):
    atoms = hydrogen(energy=1.0)
    atoms.info["tot_charge"] = 1
    ase.io.write(tmp_path / "ion.xyz", atoms, format="extxyz")
    with pytest.warns(UserWarning, match="under the key 'charge'.* but there is tot_charge"):
        read_frames(tmp_path / "ion.xyz", KeysConfig())
    atoms.info["net_charge"] = np.array([0.5, 0.5])  # not one number: a hint all the same
    ase.io.write(tmp_path / "ions.xyz", atoms, format="extxyz")
    with pytest.warns(UserWarning, match="there is net_charge, tot_charge"):
        read_frames(tmp_path / "ions.xyz", KeysConfig())
    keys = KeysConfig(total_charge="tot_charge")
    assert read_frames(tmp_path / "ion.xyz", keys)[0].total_charge == 1


@pytest.mark.parametrize("charge", ["1+", np.zeros(2), [1, 2]])
def test_total_charges_that_are_no_number_are_refused(charge):
    atoms = hydrogen(energy=1.0)
    atoms.info["charge"] = charge
    with pytest.raises(ValueError, match="structure: the total charge, under the key 'charge'"):
        label_atoms(atoms, KeysConfig())


@pytest.mark.parametrize("damage", ["number", "gzip"])
def test_damaged_files_are_named(carbon_chain, tmp_path, damage):
    text = carbon_chain.read_text()
    path = tmp_path / ("bad.xyz.gz" if damage == "gzip" else "bad.xyz")
    if damage == "gzip":
        content = bytearray(gzip.compress(text.encode()))
        content[200:260] = bytes(60)
        path.write_bytes(content)
    else:
        lines = text.splitlines()
        lines[3] = lines[3].replace(lines[3].split()[1], "x")
        path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"bad.xyz.* could not be read as extended XYZ"):
        read_frames(path, KeysConfig())
