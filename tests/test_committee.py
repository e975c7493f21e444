"""Several models as one calculator."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.calculator import InputError, ReadError
from ase.calculators.fd import calculate_numerical_forces

from phicalc import CommitteeCalculator, PhiCalculator
from phicalc.checkpoint import ModelCard, save_model
from phicalc.potential import build_potential
from phicalc.structures import evaluate_structures, water_box

from .tiny import flat_config

CONFIG = {
    "elements": ("H", "O"), "cutoff": 3.0, "layers": 1, "channels": 4, "l_max": 1,
    "correlation": 1,
}  # fmt: skip
SEEDS = (1, 2, 5)


@pytest.fixture(scope="module")
def potentials():
    return [build_potential(flat_config(**CONFIG), seed=seed) for seed in SEEDS]


@pytest.fixture
def committee(potentials):
    return CommitteeCalculator(potentials, dtype="float64")


def single_results(potentials, atoms, stress=False):
    return [PhiCalculator(p, dtype="float64").batch([atoms], stress=stress)[0] for p in potentials]


def test_mean_and_spread(potentials, committee):
    atoms = molecule("H2O")
    atoms.calc = committee
    found = single_results(potentials, atoms)
    energies = np.array([results["energy"] for results in found])
    forces = np.array([results["forces"] for results in found])
    charges = np.array([results["charges"] for results in found])
    assert atoms.get_potential_energy() == pytest.approx(energies.mean())
    assert isinstance(committee.results["energy"], float)
    np.testing.assert_allclose(atoms.get_forces(), forces.mean(axis=0))
    np.testing.assert_allclose(atoms.get_charges(), charges.mean(axis=0))
    dipole = np.mean([results["dipole"] for results in found], axis=0)
    np.testing.assert_allclose(atoms.get_dipole_moment(), dipole)
    spread = committee.committee_results
    assert spread["energy_std"] == pytest.approx(np.std(energies, ddof=1))
    deviations = ((forces - forces.mean(axis=0)) ** 2).sum(axis=(0, 2)) / 2
    np.testing.assert_allclose(spread["forces_std"], np.sqrt(deviations))
    np.testing.assert_allclose(spread["charges_std"], charges.std(axis=0, ddof=1))
    assert set(committee.results) <= set(committee.implemented_properties)
    atoms.get_properties(["energy", "forces", "charges", "dipole"])  # nothing that ASE refuses


def test_stress_and_changes(potentials, committee):
    atoms = water_box(2, density=0.5)
    atoms.calc = committee
    found = single_results(potentials, atoms, stress=True)
    stress = np.mean([results["stress"] for results in found], axis=0)
    np.testing.assert_allclose(atoms.get_stress(), stress)
    before = atoms.get_potential_energy(), committee.committee_results["energy_std"]
    atoms.info["charge"] = 1.0  # noticed like a change of positions
    assert atoms.get_potential_energy() != before[0]
    assert committee.committee_results["energy_std"] != before[1]
    one = copy.deepcopy(atoms)
    assert one.get_potential_energy() == pytest.approx(atoms.get_potential_energy())


def test_forces_are_the_derivative_of_the_mean_energy(committee):
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=3)
    atoms.calc = committee
    expected = calculate_numerical_forces(atoms, eps=1e-4)
    np.testing.assert_allclose(atoms.get_forces(), expected, atol=1e-6)


def test_a_committee_of_twins_never_disagrees(potentials):
    atoms = molecule("H2O")
    atoms.calc = CommitteeCalculator([potentials[0]] * 2, force_threshold=1e-12)
    atoms.get_forces()
    assert not atoms.calc.committee_results["forces_std"].any()


def test_members_that_are_one_model_are_noticed(potentials, tmp_path):
    for name, potential in (
        ("one", potentials[0]),
        ("copy", potentials[0]),
        ("two", potentials[1]),
    ):
        save_model(tmp_path / name, potential, ModelCard(name=name))
    with pytest.warns(UserWarning, match="1 of 3 members of the committee repeat another"):
        CommitteeCalculator([tmp_path / name for name in ("one", "two", "copy")])
    CommitteeCalculator([tmp_path / name for name in ("one", "two")])  # no warning


def test_warning_comes_once(potentials):
    atoms = molecule("H2O")
    atoms.calc = CommitteeCalculator(potentials, force_threshold=1e-6)
    with pytest.warns(UserWarning, match=r"force on atom \d \(.\) by .* eV/Å \(threshold 1e-06\)"):
        atoms.get_forces()
    atoms.positions[0] += 0.1
    atoms.get_forces()  # warnings are errors here


def test_disagreement_is_told_above_a_threshold(committee):
    assert committee.disagreement(0.0) == ""  # nothing computed yet
    atoms = molecule("H2O")
    atoms.calc = committee
    atoms.get_forces()
    spread = committee.committee_results["forces_std"]
    atom = int(spread.argmax())
    assert f"on atom {atom} ({atoms.symbols[atom]}) by" in committee.disagreement(0.0)
    assert committee.disagreement(spread[atom]) == ""


def test_reset_reaches_the_members(committee):
    """What members keep from structure to structure would make a restart inexact."""
    atoms = water_box(2, density=0.5)
    atoms.calc = committee
    atoms.get_forces()
    committee.reset()
    assert committee.committee_results == {}
    assert [member.atoms for member in committee.members] == [None] * len(SEEDS)


def test_charges_need_all_members(potentials):
    bare = build_potential(flat_config(**CONFIG, head="none"))
    atoms = molecule("H2O")
    atoms.calc = CommitteeCalculator([potentials[0], bare])
    atoms.get_potential_energy()
    assert "charges" not in atoms.calc.implemented_properties
    assert set(atoms.calc.committee_results) == {"energy_std", "energies_std", "forces_std"}


def test_folder_of_members(potentials, tmp_path):
    for i, potential in zip((0, 1, 10), potentials, strict=True):
        save_model(tmp_path / f"member_{i}" / "model", potential, ModelCard(name=f"m{i}"))
    calculator = CommitteeCalculator(tmp_path)
    assert [member.card.name for member in calculator.members] == ["m0", "m1", "m10"]
    assert len(calculator.todict()["members"]) == 3
    (tmp_path / "member_2").mkdir()
    with pytest.raises(FileNotFoundError, match="no model yet in member_2"):
        CommitteeCalculator(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folders member_0"):
        CommitteeCalculator(tmp_path / "nowhere")


def test_wrong_arguments(potentials):
    with pytest.raises(InputError, match="at least 2 models, got 1"):
        CommitteeCalculator(potentials[:1])
    with pytest.raises(InputError, match="force_threshold must be positive"):
        CommitteeCalculator(potentials, force_threshold=0.0)


def test_arguments_of_ase_belong_to_the_committee(potentials, tmp_path):
    atoms = molecule("H2O")
    calc = CommitteeCalculator(
        potentials, atoms=atoms, directory=tmp_path / "runs", label="water", dtype="float64"
    )
    assert atoms.calc is calc
    assert (calc.directory, calc.label) == (str(tmp_path / "runs"), f"{tmp_path / 'runs'}/water")
    assert {(member.directory, member.label) for member in calc.members} == {(".", None)}
    assert atoms.get_forces().shape == (3, 3)
    assert calc.committee_results
    with pytest.raises(ReadError, match="leave out restart='here'"):
        CommitteeCalculator(potentials, restart="here")
    with pytest.raises(InputError, match="no parameters 'atom' here"):
        CommitteeCalculator(potentials, atom=atoms)


def test_batches_are_loops(potentials, committee):
    frames = [molecule("H2O"), water_box(2, density=0.5), molecule("H2")]
    for found, atoms in zip(committee.batch(frames, stress=True), frames, strict=True):
        atoms.calc = committee
        if atoms.pbc.all():
            atoms.get_stress()
        atoms.get_forces()
        expected = {**committee.results, **committee.committee_results}
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
        committee.reset()
    assert committee.batch([]) == []


def test_files_are_evaluated_in_batches(committee, monkeypatch):
    monkeypatch.setattr(CommitteeCalculator, "calculate", None)
    results = evaluate_structures([molecule("H2O"), molecule("H2")], committee)
    assert [len(atoms.arrays["forces_std"]) for atoms in results] == [3, 2]
    assert all(atoms.info["energy_std"] > 0 for atoms in results)


def test_parameters_reach_all_members(committee):
    atoms = molecule("H2O")
    atoms.calc = committee
    neutral = atoms.get_potential_energy()
    assert committee.set(total_charge=1.0) == {"total_charge": 1.0}
    assert atoms.get_charges().sum() == pytest.approx(1)
    assert atoms.get_potential_energy() != neutral
    assert committee.set() == {}
    with pytest.raises(InputError, match="nonsense"):
        committee.set(nonsense=1)
    with pytest.raises(InputError, match="keeps its models"):
        committee.set(model="water")


def test_other_folders_beside_the_members_do_not_matter(potentials, tmp_path):
    for number, potential in enumerate(potentials):
        save_model(tmp_path / f"member_{number}" / "model", potential, ModelCard(name="member"))
    (tmp_path / "member_old").mkdir()
    assert len(CommitteeCalculator(tmp_path).members) == len(SEEDS)
