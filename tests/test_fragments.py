"""Charges fixed fragment by fragment, or left to a reservoir at an electric potential."""

from __future__ import annotations

import io

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed, CalculatorSetupError, InputError

import phicalc.testing as contract
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.derivatives import predict
from phicalc.electrostatics.charges import qeq
from phicalc.graph import collate
from phicalc.graph.conditions import VACUUM
from phicalc.inference.conditions import conditions_of
from phicalc.inference.evaluate import prepare
from phicalc.potential import Potential, build_potential

from .tiny import flat_config

NAN = float("nan")
#: Boundary conditions: no axis, two axes, three axes periodic.
KINDS = {"open": False, "slab": (True, True, False), "crystal": True}
kinds = pytest.mark.parametrize("kind", KINDS)
FEEDBACKS = ("none", "embedding", "network")


def make_potential(**settings: object) -> Potential:
    defaults = {
        "elements": ("H", "O"),
        "cutoff": 3.0,
        "channels": 4,
        "l_max": 1,
        "correlation": 2,
        "average_neighbors": 4.0,
        "charge_basis": 8,
        "hardness_floor": 6.0,
        "force_accuracy": 1e-10,
    }
    potential = build_potential(flat_config(**{**defaults, **settings}), seed=1).double()
    if hasattr(potential.head, "readout"):
        with torch.no_grad():
            potential.head.readout.weight.mul_(0.2)
    return potential.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def potentials() -> dict[str, Potential]:
    made = {name: make_potential(charge_feedback=name) for name in FEEDBACKS}
    return {**made, "latent": make_potential(head="latent"), "no head": make_potential(head="none")}


@pytest.fixture
def iterated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conjugate gradients for structures of any size."""
    monkeypatch.setattr(qeq, "DENSE_ATOMS", 0)


def calculator(potential: Potential, **parameters: object) -> PhiCalculator:
    return PhiCalculator(potential, device="cpu", dtype="float64", **parameters)


def molecules(kind: str = "open") -> Atoms:
    """Three rattled waters in a row, fragments 0, 1 and 2."""
    atoms = Atoms()
    for number in range(3):
        water = molecule("H2O")
        water.rotate(50 * number, (1, 2, 3))
        water.translate((0.3 * number, 0.1, 3.1 * number))
        atoms += water
    atoms.rattle(0.05, seed=2)
    atoms.set_cell([[5.2, 0.0, 0.0], [0.5, 5.0, 0.0], [-0.3, 0.4, 9.4]])
    atoms.pbc = KINDS[kind]
    atoms.set_array("fragments", np.repeat([0, 1, 2], 3))
    return atoms


def with_charges(kind: str) -> Atoms:
    atoms = molecules(kind)
    atoms.info["fragment_charges"] = [0.3, 0.0, -0.5]
    return atoms


def biased(kind: str) -> Atoms:
    """First and last molecule are the electrodes of a neutral cell."""
    atoms = molecules(kind)
    atoms.info.update(
        charge=0.0, fragment_charges=[NAN, 0.1, NAN], fragment_potentials=[-0.4, NAN, 0.6]
    )
    return atoms


def grounded(kind: str) -> Atoms:
    """One molecule exchanges charge with a reservoir, the total charge is not fixed."""
    atoms = molecules(kind)
    atoms.info.update(fragment_charges=[0.2, NAN, 0.0], fragment_potentials=[NAN, 0.7, NAN])
    return atoms


MODES = {"charges": with_charges, "biased": biased, "grounded": grounded}
modes = pytest.mark.parametrize("mode", MODES)


def sums(charges: np.ndarray, atoms: Atoms) -> np.ndarray:
    return np.bincount(atoms.arrays["fragments"], charges)


@kinds
@pytest.mark.parametrize("name", [*FEEDBACKS, "latent"])
def test_fragments_have_their_charges(potentials, name, kind):
    atoms = with_charges(kind)
    charges = calculator(potentials[name]).get_charges(atoms)
    np.testing.assert_allclose(sums(charges, atoms), [0.3, 0.0, -0.5], atol=1e-12)
    del atoms.info["fragment_charges"]
    free = calculator(potentials[name]).get_charges(atoms)
    assert np.abs(sums(free, atoms) - [0.3, 0.0, -0.5]).max() > 0.1


@modes
@kinds
@pytest.mark.parametrize("name", FEEDBACKS)
def test_forces_and_stress_are_derivatives_of_the_energy(potentials, name, kind, mode):
    if name != "none" and mode != "charges":
        pytest.skip("reservoirs need charges that minimize the energy")
    evaluate = contract.from_calculator(calculator(potentials[name]))
    contract.check_forces(evaluate, MODES[mode](kind))
    contract.check_stress(evaluate, MODES[mode](kind))


@modes
@kinds
def test_iterated_charges_are_those_of_the_inverse(potentials, kind, mode, monkeypatch):
    atoms = MODES[mode](kind)
    exact = calculator(potentials["none"])
    forces, charges = exact.get_forces(atoms), exact.get_charges(atoms)
    monkeypatch.setattr(qeq, "DENSE_ATOMS", 0)
    rough = calculator(potentials["none"])
    np.testing.assert_allclose(rough.get_charges(atoms), charges, atol=2e-6)
    np.testing.assert_allclose(rough.get_forces(atoms), forces, atol=2e-5)
    np.testing.assert_allclose(
        rough.get_potential_energy(atoms), exact.results["energy"], atol=1e-8
    )


@modes
def test_iterations_with_fragments_can_be_differentiated(potentials, mode, iterated):
    contract.check_forces(
        contract.from_calculator(calculator(potentials["none"])), MODES[mode]("open"), 1e-5
    )


@pytest.mark.parametrize("kind", ["open", "crystal"])
def test_a_reservoir_at_the_right_potential_leaves_the_charges(potentials, kind):
    atoms = molecules(kind)
    atoms.info["charge"] = 0.4
    closed = calculator(potentials["none"])
    forces, charges = closed.get_forces(atoms), closed.get_charges(atoms)
    potential = closed.get_electrode_potentials(atoms)
    np.testing.assert_allclose(potential, potential[0], atol=1e-12)
    del atoms.info["charge"]
    connected = calculator(potentials["none"], electrode_potential=potential[0])
    np.testing.assert_allclose(connected.get_charges(atoms), charges, atol=1e-9)
    np.testing.assert_allclose(connected.get_forces(atoms), forces, atol=1e-9)
    given_away = closed.get_potential_energy() - 0.4 * potential[0]
    assert connected.get_potential_energy(atoms) == pytest.approx(given_away, abs=1e-9)
    assert connected.energy_terms["reservoirs"] == pytest.approx(-0.4 * potential[0], abs=1e-9)
    np.testing.assert_allclose(connected.get_electrode_potentials(atoms), potential, atol=1e-12)


@pytest.mark.parametrize("name", FEEDBACKS)
def test_electrode_potential_is_the_derivative_in_the_charge(potentials, name):
    atoms = molecules()
    step = 1e-4
    below, above = (
        calculator(potentials[name], total_charge=0.2 + dq).get_potential_energy(atoms)
        for dq in (-step, step)
    )
    potential = calculator(potentials[name], total_charge=0.2).get_electrode_potentials(atoms)
    assert potential[0] == pytest.approx((above - below) / (2 * step), rel=1e-6)


def test_charge_is_minus_the_derivative_in_the_electrode_potential(potentials):
    atoms, step = molecules(), 1e-4
    energies = [
        calculator(potentials["none"], electrode_potential=v).get_potential_energy(atoms)
        for v in (0.3 - step, 0.3 + step)
    ]
    calc = calculator(potentials["none"], electrode_potential=0.3)
    charge = calc.get_charges(atoms).sum()
    assert charge == pytest.approx((energies[0] - energies[1]) / (2 * step), rel=1e-6)
    more = calculator(potentials["none"], electrode_potential=0.5).get_charges(atoms).sum()
    assert more > charge + 1e-3  # a positive electrode is charged positively


@kinds
def test_two_electrodes_of_a_neutral_cell_are_a_capacitor(potentials, kind):
    atoms = biased(kind)
    calc = calculator(potentials["none"])

    def charge(low: float, high: float) -> np.ndarray:
        atoms.info["fragment_potentials"] = [low, NAN, high]
        return sums(calc.get_charges(atoms), atoms)

    moved = charge(-0.4, 0.6) - charge(0.0, 0.0)
    assert moved[2] > 1e-3
    np.testing.assert_allclose(moved, [-moved[2], 0, moved[2]], atol=1e-10)
    np.testing.assert_allclose(charge(-0.8, 1.2) - charge(0.0, 0.0), 2 * moved, atol=1e-9)
    np.testing.assert_allclose(charge(2.6, 3.6), charge(-0.4, 0.6), atol=1e-9)  # differences count
    potential = calc.get_electrode_potentials(atoms)[[0, -1]]
    assert potential[1] - potential[0] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("dense", [True, False])
def test_charge_that_flows_without_end_is_refused(potentials, dense, monkeypatch):
    # The potential of a charged slab falls to both sides for ever: there is no zero to refer to.
    potential = potentials["none"]
    atoms = molecules("slab")
    if not dense:
        monkeypatch.setattr(qeq, "DENSE_ATOMS", 0)
    with pytest.raises(CalculationFailed, match="no minimum while charge may flow"):
        calculator(potential, electrode_potential=0.1).get_potential_energy(atoms)
    calculator(potential, total_charge=0.0).get_potential_energy(atoms)


@pytest.mark.parametrize("dense", [True, False])
def test_batch_is_the_same_as_one_by_one(potentials, dense, monkeypatch):
    if not dense:
        monkeypatch.setattr(qeq, "DENSE_ATOMS", 0)
    potential = potentials["embedding"]
    plain = molecules("crystal")
    structures = [with_charges("slab"), plain, biased("crystal"), grounded("open"), Atoms("H")]
    parameters = {"total_charge": None, "external_field": None, "electrode_potential": None}
    graphs = [
        prepare(potential, atoms, conditions_of(atoms, parameters)).graph for atoms in structures
    ]
    together = predict(potential, collate(graphs))
    singles = [predict(potential, graph) for graph in graphs]
    for name, tolerance in (("energy", 1e-9), ("charges", 1e-9), ("forces", 1e-8)):
        alone = torch.cat([getattr(single, name) for single in singles])
        torch.testing.assert_close(getattr(together, name), alone, rtol=0, atol=tolerance)


def test_changes_of_fragments_are_noticed(potentials):
    atoms = with_charges("open")
    atoms.calc = calculator(potentials["none"])
    before = atoms.get_potential_energy()
    atoms.info["fragment_charges"][0] = 0.1
    assert atoms.get_potential_energy() != before
    atoms.info["fragment_charges"][0] = 0.3
    atoms.arrays["fragments"][:] = np.repeat([1, 0, 2], 3)
    assert atoms.get_potential_energy() != before
    atoms.arrays["fragments"][:] = np.repeat([0, 1, 2], 3)
    assert atoms.get_potential_energy() == before
    assert atoms.calc.check_state(atoms) == []


def test_fragments_survive_a_file(potentials):
    file = io.StringIO()
    atoms = biased("slab")
    ase.io.write(file, atoms, format="extxyz")
    file.seek(0)
    again = ase.io.read(file, format="extxyz")
    energies = [calculator(potentials["none"]).get_potential_energy(a) for a in (atoms, again)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-4)  # eight digits of positions


def test_numbers_alone_mean_nothing(potentials):
    atoms = molecules()
    plain = molecules()
    del plain.arrays["fragments"]
    energies = [calculator(potentials["none"]).get_potential_energy(a) for a in (atoms, plain)]
    assert energies[0] == energies[1]
    parameters = {"total_charge": None, "external_field": None, "electrode_potential": None}
    assert conditions_of(atoms, parameters) == VACUUM


MISTAKES = {
    "no numbers": (dict(fragment_charges=[0.0, 0.1]), None, r'arrays\["fragments"\] must say'),
    "an empty fragment": (
        dict(fragment_charges=[0.0] * 4), np.repeat([0, 1, 3], 3), "integers from 0 to 3"
    ),
    "negative numbers": (
        dict(fragment_charges=[0.0] * 3), np.repeat([0, 1, -1], 3), "integers from 0 to 2"
    ),
    "not whole numbers": (
        dict(fragment_charges=[0.0] * 3), np.repeat([0.0, 1.0, 2.0], 3), "integers from 0 to 2"
    ),
    "both": (
        dict(fragment_charges=[0.0, 0.0, 0.0], fragment_potentials=[NAN, 1.0, NAN]), ..., "either"
    ),
    "neither": (dict(fragment_charges=[0.0, 0.0, NAN]), ..., "either"),
    "too few": (
        dict(fragment_charges=[0.0, NAN, 0.0], fragment_potentials=[NAN, 1.0]), ..., "either"
    ),
    "words": (dict(fragment_charges=["a", "b", "c"]), ..., "one number per fragment"),
    "infinity": (dict(fragment_charges=[0, np.inf, 0]), ..., "one number per fragment"),
    "another sum": (dict(charge=1.0, fragment_charges=[0.3, 0, 0]), ..., "sum to 0.3 e"),
    "two potentials": (
        dict(electrode_potential=1.0, fragment_charges=[0.0] * 3), ..., "whole structure"
    ),
    "charge and potential": (dict(electrode_potential=1.0, charge=0.0), ..., "leave one"),
    "no potential": (dict(electrode_potential=NAN), ..., "one finite number"),
    "a field and a reservoir": (
        dict(electrode_potential=1.0, external_field=[0.1, 0, 0]), ..., "depend on the origin"
    ),
    "a field and a net charge": (
        dict(external_field=[0.1, 0, 0], fragment_charges=[0.3, 0, 0]), ..., "depend on the origin"
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused_with_the_reason(potentials, mistake):
    info, numbers, reason = MISTAKES[mistake]
    atoms = molecules()
    atoms.info.update(info)
    if numbers is not ...:
        del atoms.arrays["fragments"]
        if numbers is not None:
            atoms.set_array("fragments", numbers)
    with pytest.raises(InputError, match=reason):
        calculator(potentials["none"]).get_potential_energy(atoms)


def test_models_without_flowing_charges_refuse_reservoirs(potentials):
    atoms = molecules()
    for name, reason in (("latent", "charges that can flow"), ("no head", "has none")):
        with pytest.raises(CalculatorSetupError, match=reason):
            calculator(potentials[name], electrode_potential=1.0).get_potential_energy(atoms)
    with pytest.raises(CalculatorSetupError, match="this model has none"):
        calculator(potentials["no head"]).get_potential_energy(with_charges("open"))
    for head in ("dirichlet", "spectral"):
        with pytest.raises(CalculatorSetupError, match="sum to zero whatever is asked for"):
            calculator(make_potential(head=head)).get_potential_energy(with_charges("open"))


@pytest.mark.parametrize("settings", [
    {"charge_feedback": "embedding"}, {"charge_feedback": "network"},
    {"electrostatic_energy": "coulomb"},
], ids=str)  # fmt: skip
def test_reservoirs_that_do_not_minimize_the_energy_are_refused(settings):
    potential = make_potential(**settings)
    for atoms, given in ((molecules(), {"electrode_potential": 1.0}), (biased("open"), {}),
                         (grounded("open"), {})):  # fmt: skip
        with pytest.raises(CalculatorSetupError, match="would not minimize E − V·Q"):
            calculator(potential, **given).get_potential_energy(atoms)
    calculator(potential).get_potential_energy(with_charges("open"))


def test_fragments_charges_can_be_inputs_of_the_network():
    potential = make_potential(total_charge_embedding=True)
    contract.check_forces(contract.from_calculator(calculator(potential)), with_charges("slab"))
    atoms = molecules()
    atoms.set_array("fragments", np.array([0] * 3 + [1] * 6))
    atoms.info["fragment_charges"] = [1.0, -1.0]
    energies = []
    for far in (0.0, 50.0):  # each fragment sees its own mean charge, however far the other is
        moved = atoms.copy()
        moved.positions[3:] += far
        energies.append(calculator(potential).get_potential_energies(moved)[:3].sum())
    alone = atoms[:3]
    alone.info = {"charge": 1.0}
    neutral = atoms[:3]
    neutral.info = {}
    alone, neutral = (calculator(potential).get_potential_energy(a) for a in (alone, neutral))
    assert energies[1] == pytest.approx(alone, abs=0.3)  # but for the field of the other
    assert abs(alone - neutral) > 1.0
    with pytest.raises(CalculatorSetupError, match="unknown beforehand"):
        calculator(potential, electrode_potential=0.5).get_potential_energy(molecules())


def test_a_field_acts_on_fragments_without_net_charge(potentials):
    atoms = with_charges("open")
    atoms.info["fragment_charges"] = [0.2, 0.0, -0.2]
    calc = calculator(potentials["none"], external_field=(0.1, 0.0, 0.2))
    contract.check_forces(contract.from_calculator(calc), atoms)
    np.testing.assert_allclose(sums(calc.get_charges(atoms), atoms), [0.2, 0, -0.2], atol=1e-12)
