"""Files of labelled structures in the formats and under the names that others use."""

from __future__ import annotations

import gzip

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc.data.config import KeysConfig
from phicalc.data.files import read_frames
from phicalc.data.frames import label_atoms
from phicalc.data.isolated import without_isolated_atoms
from phicalc.training import evaluate_model, train
from phicalc.training import run as run_module
from phicalc.training.dataset import load_splits


def hydrogen(**results) -> Atoms:
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def crystal() -> Atoms:
    """Argon with the stress and the virial of its Lennard-Jones energy."""
    atoms = bulk("Ar", a=5.1, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.01, rc=8.0)
    return atoms


XYZ = "2\nProperties=species:S:1:pos:R:3{columns} {info}\nH 0 0 0{row}\nH 0 0 0.8{row}\n"


@pytest.mark.parametrize("name", ["energy", "stress", "charges", "dipole", "forces", "virial"])
@pytest.mark.parametrize("value", ["-1.0D0", True, ["a", "b"], [[1.0], [2.0, 3.0]], 1j])
def test_labels_that_are_no_numbers_name_frame_and_key(name, value):
    atoms = hydrogen()
    atoms.info["mine"] = value
    with pytest.raises(ValueError, match=rf"file, frame 3: {name} must be numbers.*'mine'"):
        label_atoms(atoms, KeysConfig(**{name: "mine"}), origin="file, frame 3")


@pytest.mark.parametrize("value", ["1", True, [1, 1], None, "-1.0D0"])
def test_total_charges_that_are_no_numbers_are_refused(value):
    atoms = hydrogen()
    atoms.info["charge"] = value
    if value is None:
        assert label_atoms(atoms, KeysConfig()).total_charge == 0
        return
    with pytest.raises(ValueError, match=r"frame 3: the total charge, under the key 'charge'"):
        label_atoms(atoms, KeysConfig(), origin="frame 3")


@pytest.mark.parametrize("info", ["energy=-1.0D0", "energy=T", 'energy="low"'])
def test_energies_of_files_that_are_no_numbers_name_file_frame_and_key(info, tmp_path):
    path = tmp_path / "data.xyz"
    good = XYZ.format(columns="", info="energy=-1.0", row="")
    path.write_text(good + XYZ.format(columns="", info=info, row=""))
    with pytest.raises(ValueError, match=r"data.xyz, frame 1: energy must be numbers.*'energy'"):
        read_frames(path, KeysConfig())


def test_forces_of_files_that_are_no_numbers_name_file_and_frame(tmp_path):
    path = tmp_path / "data.xyz"
    good = XYZ.format(columns=":forces:R:3", info="", row=" 0 0 1.0")
    path.write_text(good + XYZ.format(columns=":forces:R:3", info="", row=" 0 0 1.0D0"))
    with pytest.raises(ValueError, match=r"data.xyz could not be read.*: frame 1: .*1.0D0"):
        read_frames(path, KeysConfig())


@pytest.mark.parametrize("shape", [(3, 3), (9,), (6,)])
def test_virials_become_stresses(shape, tmp_path):
    atoms = crystal()
    stress = atoms.get_stress(voigt=shape == (6,))
    labelled = atoms.copy()
    labelled.info["virial"] = (-atoms.get_volume() * stress).reshape(shape)
    found = label_atoms(labelled, KeysConfig()).labels.stress[0].numpy()
    np.testing.assert_allclose(found, atoms.get_stress(voigt=False), atol=1e-12)
    labelled.info["stress"] = 2 * stress  # a stress wins
    found = label_atoms(labelled, KeysConfig()).labels.stress[0].numpy()
    np.testing.assert_allclose(found, 2 * atoms.get_stress(voigt=False), atol=1e-12)


def test_virials_of_files_become_stresses(tmp_path):
    atoms = crystal()
    labelled = atoms.copy()
    labelled.info["dft_virial"] = -atoms.get_volume() * atoms.get_stress(voigt=False)
    ase.io.write(tmp_path / "data.xyz", labelled, format="extxyz")
    frame = read_frames(tmp_path / "data.xyz", KeysConfig(virial="dft_virial"), ["stress"])[0]
    np.testing.assert_allclose(frame.labels.stress[0], atoms.get_stress(voigt=False), atol=1e-7)


def test_virials_without_a_volume_are_no_stress():
    atoms = hydrogen()
    atoms.info["virial"] = np.eye(3)
    assert label_atoms(atoms, KeysConfig()).labels.stress.isnan().all()


@pytest.mark.parametrize("key", ["virial", "REF_virials", "Virial"])
def test_virials_that_are_named_as_stress_are_refused(key):
    with pytest.raises(ValueError, match=rf"virial: {key}"):
        KeysConfig(stress=key)


def frames_of(carbon_chain) -> list[Atoms]:
    images = ase.io.read(carbon_chain, ":5")
    for atoms in images:
        atoms.info = {"charge": atoms.info["charge"]}
    return images


@pytest.mark.parametrize("name", ["f.xyz", "f.extxyz", "f.xyz.gz", "f.traj", "f.json", "f.db"])
def test_every_format_gives_the_same_labels(name, carbon_chain, tmp_path):
    images, path = frames_of(carbon_chain), tmp_path / name
    if path.suffix in (".json", ".db"):
        with ase.db.connect(path) as database:
            for atoms in images:
                database.write(atoms, {"total": atoms.info["charge"]})
    else:
        ase.io.write(path, images)
    keys = KeysConfig(total_charge="total" if path.suffix in (".json", ".db") else "charge")
    found = read_frames(path, keys, ["energy", "forces", "charges", "dipole"])
    for frame, atoms in zip(found, images, strict=True):
        assert frame.total_charge == atoms.info["charge"]
        assert frame.labels.energy.item() == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(frame.labels.forces, atoms.get_forces(), atol=1e-7)
        np.testing.assert_allclose(frame.labels.dipole[0], atoms.get_dipole_moment(), atol=1e-7)


def test_extended_xyz_is_read_under_any_name(carbon_chain, tmp_path):
    path = tmp_path / "frames.train"
    path.write_bytes(carbon_chain.read_bytes())
    assert len(read_frames(path, KeysConfig(), ["energy"])) == 30
    path = tmp_path / "POSCAR_like.xyz.gz"
    path.write_bytes(gzip.compress(carbon_chain.read_bytes()))
    assert len(read_frames(path, KeysConfig(), ["energy"])) == 30


@pytest.mark.parametrize("name", ["f.traj", "f.db", "f.json", "f.npz", "f.hdf5"])
def test_files_of_other_content_are_refused_with_what_is_read(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x00\x01 no structures")
    with pytest.raises(ValueError, match=rf"{name} could not be read: .*\.traj, \.db, \.json"):
        read_frames(tmp_path / name, KeysConfig())


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("REF_energy", "energy"), ("dft_energy", "energy"), ("TotEnergy", "energy"),
        ("Energy", "energy"), ("REF_forces", "forces"), ("mp2_forces", "forces"),
        ("force", "forces"), ("DFT_dipole", "dipole"), ("ref_charges", "charges"),
    ],
)  # fmt: skip
def test_labels_under_the_names_of_others_are_noticed(name, label, tmp_path):
    atoms = hydrogen()
    values = {"energy": -1.0, "forces": np.ones((2, 3)), "dipole": np.ones(3)}
    place = atoms.arrays if label in ("forces", "charges") else atoms.info
    place[name] = values.get(label, np.ones(2))
    with pytest.raises(ValueError, match=rf"Did you mean data.keys.{label}: {name}\?"):
        label_atoms(atoms, KeysConfig(), [label])
    ase.io.write(tmp_path / "data.xyz", atoms, format="extxyz")
    with pytest.warns(UserWarning, match=rf"data.keys.{label}: {name}\?"):
        read_frames(tmp_path / "data.xyz", KeysConfig())


@pytest.mark.parametrize("name", ["Charge", "qtot", "REF_charge", "total_charge", "net_charge"])
def test_total_charges_under_the_names_of_others_are_noticed(name, tmp_path):
    atoms = hydrogen()
    atoms.info[name] = 1
    ase.io.write(tmp_path / "data.xyz", atoms, format="extxyz")
    with pytest.warns(UserWarning, match=rf"neutral; but there is {name}"):
        read_frames(tmp_path / "data.xyz", KeysConfig())


def test_names_that_are_given_are_not_suggested(tmp_path, recwarn):
    atoms = hydrogen()
    atoms.info |= {"REF_energy": -1.0, "charge": 0}
    ase.io.write(tmp_path / "data.xyz", atoms, format="extxyz")
    read_frames(tmp_path / "data.xyz", KeysConfig(energy="REF_energy"))
    assert not [w for w in recwarn if "Did you mean" in str(w.message)]


def test_names_that_no_frame_has_are_said_before_training(make_config, tmp_path):
    images = [hydrogen(energy=-1.0, forces=np.zeros((2, 3))) for _ in range(3)]
    for i, atoms in enumerate(images):
        atoms.positions[1, 2] += 0.1 * i
    ase.io.write(tmp_path / "data.xyz", images, format="extxyz")
    data = {"train": [str(tmp_path / "data.xyz")], "keys": {"total_charge": "q_tot"}}
    config = make_config(data=data)
    with pytest.warns(UserWarning, match=r"data.keys: .*total charge .*'q_tot': all count as neut"):
        load_splits(config.data, config.loss)


def atom(symbol: str, energy: float, **info) -> Atoms:
    atoms = Atoms(symbol, [[0, 0, 0]], info={"config_type": "IsolatedAtom", **info})
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


@pytest.fixture
def with_atoms(carbon_chain, tmp_path):
    path = tmp_path / "with_atoms.xyz"
    images = ase.io.read(carbon_chain, ":")
    ase.io.write(path, [atom("H", -10.5), *images, atom("C", -48.25)], format="extxyz")
    return path


def test_isolated_atoms_are_reference_energies_and_no_frames(
    make_config, settings, with_atoms, monkeypatch
):
    for name in ("plot_curves", "plot_parity"):
        monkeypatch.setattr(run_module, name, lambda *_: None)
    data = {"train": [str(with_atoms)], "split": "last", "valid_count": 20}
    config = make_config(data=data, max_epochs=1)
    splits = load_splits(config.data, config.loss)
    assert min(len(f.atoms) for f in splits.train + splits.valid + splits.test) > 1
    assert sum(splits.record["counts"].values()) == 30
    lines: list[str] = []
    result = train(config, report=lines.append)
    assert "reference energies of isolated atoms: C -48.2500, H -10.5000 eV" in lines
    card = run_module.read_card(result.model)
    assert card.potential["reference_energies"] == [-10.5, -48.25]
    lines.clear()
    assert evaluate_model(result.model, with_atoms, report=lines.append)["n_structures"] == 30
    assert "2 isolated atoms left out" in lines


def test_isolated_atoms_of_a_part_of_the_elements_are_said(make_config, carbon_chain, tmp_path):
    path = tmp_path / "data.xyz"
    images = ase.io.read(carbon_chain, ":6")
    ase.io.write(path, [atom("H", -10.5), *images], format="extxyz")
    lines: list[str] = []
    config = make_config(data={"train": [str(path)], "valid_count": 2})
    run = run_module._Run(config, None, lines.append, run_module.Team())
    assert any("there is none of C, so the reference energies are fitted" in line for line in lines)
    assert run.potential.config.reference_energies[0] != -10.5


def test_isolated_atoms_that_contradict_each_other_are_refused(make_config, tmp_path):
    path = tmp_path / "atoms.xyz"
    ase.io.write(path, [atom("H", -10.5), atom("H", -13.6)], format="extxyz")
    config = make_config(data={"train": [str(path)]})
    with pytest.raises(ValueError, match=r"frame 1: the isolated atom of H .*-13.6 eV.*frame 0"):
        load_splits(config.data, config.loss)


def test_ions_that_are_called_isolated_stay_frames(tmp_path):
    path = tmp_path / "ions.xyz"
    ase.io.write(path, [atom("H", -10.5, charge=1)], format="extxyz")
    frames = read_frames(path, KeysConfig())
    assert len(without_isolated_atoms(frames)[0]) == 1
