"""Born charges, polarizability and potential against finite differences and sum rules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import (
    CalculatorSetupError,
    InputError,
    PropertyNotImplementedError,
)

from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.derivatives import Prediction, predict
from phicalc.electrostatics import CoulombSum
from phicalc.electrostatics.charges import qeq
from phicalc.graph import AtomicGraph, Conditions
from phicalc.inference.evaluate import prepare
from phicalc.potential import Potential, build_potential
from phicalc.response import (
    born_effective_charges,
    electrostatic_potential,
    has_born_charges,
    polarizability,
)

from .tiny import flat_config

HEADS = {
    "qeq": {},
    "coulomb": {"electrostatic_energy": "coulomb"},
    "embedding": {"charge_feedback": "embedding"},
    "network": {"charge_feedback": "network", "charge_basis": 8},
    "latent": {"head": "latent"},
    "atomic dipoles": {"atomic_dipoles": True},
}


#: One head of each way to find charges, for what depends on nothing else. With these the energy
#: in a field is stationary in the charges, or the charges are constant: ∂E/∂field is the dipole.
CHARGES = ["qeq", "latent", "atomic dipoles"]


def make_potential(**settings: object) -> Potential:
    """Random weights in float64, as a calculator has them: without gradients of their own."""
    defaults = {
        "elements": ("H", "O"),
        "cutoff": 3.0,
        "channels": 4,
        "l_max": 1,
        "correlation": 2,
        "average_neighbors": 4.0,
        "force_accuracy": 1e-9,
    }
    potential = build_potential(flat_config(**{**defaults, **settings}), seed=1)
    return potential.double().eval().requires_grad_(False)


@pytest.fixture(params=list(HEADS))
def potential(request: pytest.FixtureRequest) -> Potential:
    return make_potential(**HEADS[request.param])


@pytest.fixture(params=["latent", "latent with dipoles"])
def bound(request: pytest.FixtureRequest) -> Potential:
    """Charges that do not flow, whose Born charges exist in crystals."""
    return make_potential(head="latent", atomic_dipoles=request.param != "latent")


@pytest.fixture(params=CHARGES)
def charged(request: pytest.FixtureRequest) -> Potential:
    return make_potential(**HEADS[request.param])


def dimer() -> Atoms:
    """Two rattled waters; the molecules lie in no common plane."""
    atoms = molecule("H2O") + molecule("H2O")
    atoms.rotate(50, (1, 2, 3))
    atoms.positions[3:] += (1.8, 1.9, 2.1)
    atoms.rattle(0.05, seed=2)
    return atoms


def cell(pbc: object = True) -> Atoms:
    """Put the dimer into a skewed cell, periodic along some axes; one atom in another image."""
    atoms = dimer()
    atoms.set_cell([[4.2, 0.0, 0.0], [0.5, 4.0, 0.0], [-0.3, 0.4, 4.4]])
    atoms.pbc = pbc
    atoms.positions[1] += np.array([1, -2, 1]) * atoms.pbc @ np.array(atoms.cell)
    return atoms


KINDS = {
    "molecule": dimer,
    "wire": lambda: cell([False, True, False]),
    "slab": lambda: cell([True, True, False]),
    "crystal": cell,
}


def graph_of(
    potential: Potential,
    atoms: Atoms,
    *,
    charge: float = 0.0,
    field: np.ndarray | None = None,
) -> AtomicGraph:
    """Prepare a graph; unlike the calculator, with a field on charged structures too."""
    graph = prepare(potential, atoms, Conditions(charge)).graph
    if field is None:
        return graph
    return graph._replace(external_field=torch.tensor(np.atleast_2d(field), dtype=torch.float64))


def in_field(
    potential: Potential, atoms: Atoms, field: np.ndarray, charge: float = 0.0
) -> Prediction:
    return predict(potential, graph_of(potential, atoms, charge=charge, field=field))


def dipole_of(prediction: Prediction, atoms: Atoms) -> np.ndarray:
    """Dipole moment about the origin."""
    moment = prediction.charges.numpy() @ atoms.positions
    if prediction.atomic_dipoles is not None:
        moment = moment + prediction.atomic_dipoles.sum(0).numpy()
    return moment


#: An O and an H of different molecules.
SOME = [0, 4]


def by_displacement(function: Callable[[Atoms], np.ndarray], atoms: Atoms) -> np.ndarray:
    """Central differences with respect to the coordinates of two atoms, shape (2, ..., 3)."""
    step, rows = 1e-4, []
    for atom in SOME:
        columns = []
        for axis in range(3):
            values = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[atom, axis] += sign * step
                values.append(function(moved))
            columns.append((values[0] - values[1]) / (2 * step))
        rows.append(np.stack(columns, axis=-1))
    return np.stack(rows)


# --- Born effective charges ----------------------------------------------------------------------


@pytest.mark.parametrize("charge", [0.0, 1.0])
def test_born_charges_are_derivatives_of_the_dipole(potential: Potential, charge: float) -> None:
    atoms = dimer()

    def dipole(moved: Atoms) -> np.ndarray:
        return dipole_of(predict(potential, graph_of(potential, moved, charge=charge)), moved)

    born = born_effective_charges(potential, graph_of(potential, atoms, charge=charge))
    assert not born.requires_grad
    np.testing.assert_allclose(born[SOME], by_displacement(dipole, atoms), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(born.sum(0), charge * np.eye(3), atol=1e-10)
    charges = predict(potential, graph_of(potential, atoms, charge=charge)).charges
    assert (born - charges[:, None, None] * torch.eye(3)).abs().max() > 0.05  # charges respond


@pytest.mark.parametrize("charge", [0.0, 1.0])
def test_born_charges_are_derivatives_of_forces_by_the_field(
    charged: Potential, charge: float
) -> None:
    atoms, step = dimer(), 1e-3
    born = born_effective_charges(charged, graph_of(charged, atoms, charge=charge)).numpy()
    for axis, direction in enumerate(np.eye(3)):
        up, down = (in_field(charged, atoms, s * step * direction, charge) for s in (1, -1))
        slope = (up.forces - down.forces).numpy() / (2 * step)
        if charged.config.head.name == "latent":  # the field does not move these charges: exact
            np.testing.assert_allclose(slope, born[:, axis], atol=1e-9)
        else:
            np.testing.assert_allclose(slope, born[:, axis], atol=1e-5)


def test_born_charges_in_a_field(charged: Potential) -> None:
    atoms, field = dimer(), np.array([0.3, -0.2, 0.4])

    def dipole(moved: Atoms) -> np.ndarray:
        return dipole_of(in_field(charged, moved, field), moved)

    born = born_effective_charges(charged, graph_of(charged, atoms, field=field))
    np.testing.assert_allclose(born[SOME], by_displacement(dipole, atoms), rtol=1e-5, atol=1e-5)
    without = born_effective_charges(charged, graph_of(charged, atoms))
    responds = charged.config.head.name != "latent"
    assert bool((born - without).abs().max() > 1e-3) == responds


@pytest.mark.parametrize("charge", [0.0, -1.0])
@pytest.mark.parametrize("kind", ["wire", "slab", "crystal"])
def test_born_charges_sum_to_the_total_charge(bound: Potential, kind: str, charge: float) -> None:
    born = born_effective_charges(bound, graph_of(bound, KINDS[kind](), charge=charge))
    np.testing.assert_allclose(born.sum(0), charge * np.eye(3), atol=1e-10)


@pytest.mark.parametrize("kind", ["wire", "slab", "crystal"])
def test_born_charges_follow_the_phases(bound: Potential, kind: str) -> None:
    atoms = KINDS[kind]()
    axes = np.where(atoms.pbc[:, None], atoms.cell.array, atoms.cell.complete().array)
    if kind == "wire":
        axes[[0, 2]] = np.linalg.svd(axes[1:2])[2][1:]
    elif kind == "slab":
        axes[2] = np.cross(axes[0], axes[1])
    inverse = np.linalg.inv(axes)

    def phases(moved: Atoms) -> np.ndarray:
        prediction = predict(bound, graph_of(bound, moved))
        fractional = moved.positions @ inverse
        waves = np.exp(2j * np.pi * fractional) / (2j * np.pi)
        return prediction.charges.numpy() @ np.where(moved.pbc, waves, fractional)

    def own(moved: Atoms) -> np.ndarray:  # no translation changes the dipoles of the atoms
        dipoles = predict(bound, graph_of(bound, moved)).atomic_dipoles
        return np.zeros(3) if dipoles is None else dipoles.sum(0).numpy()

    turn = np.where(atoms.pbc, np.exp(-2j * np.pi * atoms.positions @ inverse), 1.0)
    slopes = (turn[SOME, :, None] * by_displacement(phases, atoms)).real
    expected = np.einsum("nab,ax->nxb", slopes, axes) + by_displacement(own, atoms)
    born = born_effective_charges(bound, graph_of(bound, atoms)).numpy()[SOME]
    # Both lack or have the same share of what is distributed evenly.
    np.testing.assert_allclose(born[0] - born[1], expected[0] - expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("charge", [0.0, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_charges_that_do_not_respond_are_their_own_born_charges(kind: str, charge: float) -> None:
    potential = make_potential(head="latent")
    with torch.no_grad():
        potential.head.readout.weight.zero_()
        potential.head.offset.copy_(torch.tensor([0.5, -0.7]))
    graph = graph_of(potential, KINDS[kind](), charge=charge)
    charges = predict(potential, graph).charges
    assert charges.abs().min() > 0.1
    born = born_effective_charges(potential, graph)
    np.testing.assert_allclose(born, charges[:, None, None] * torch.eye(3), atol=1e-12)


@pytest.mark.parametrize("charge", [0.0, 1.0])
def test_born_charges_of_a_large_box_are_those_of_the_molecule(
    bound: Potential, charge: float
) -> None:
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=1)
    alone = born_effective_charges(bound, graph_of(bound, atoms, charge=charge))
    atoms.pbc = True
    errors = []
    for length in (15.0, 30.0):
        atoms.set_cell(length * np.eye(3))
        boxed = born_effective_charges(bound, graph_of(bound, atoms, charge=charge))
        errors.append(float((boxed - alone).abs().max()))
    assert errors[1] < 0.3 * errors[0]  # neglected terms fall with the square of the length
    assert errors[1] < 0.02 * float(alone.abs().max())


def test_born_charges_of_a_slab_along_its_normal(bound: Potential) -> None:
    atoms, step = KINDS["slab"](), 1e-3
    up, down = (in_field(bound, atoms, np.array([0, 0, s * step])) for s in (1, -1))
    slope = (up.forces - down.forces).numpy() / (2 * step)
    born = born_effective_charges(bound, graph_of(bound, atoms))
    np.testing.assert_allclose(born[:, 2], slope, atol=1e-5)


def test_born_charges_turn_with_the_structure(bound: Potential) -> None:
    atoms = KINDS["slab"]()
    born = born_effective_charges(bound, graph_of(bound, atoms)).numpy()
    matrix, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    atoms.set_cell(atoms.cell @ matrix)
    atoms.positions = atoms.positions @ matrix
    turned = born_effective_charges(bound, graph_of(bound, atoms)).numpy()
    np.testing.assert_allclose(turned, matrix.T @ born @ matrix, atol=1e-8)


def test_response_by_conjugate_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = make_potential()
    graph = graph_of(potential, dimer())
    dense = born_effective_charges(potential, graph)
    polarizable = polarizability(potential, graph)
    monkeypatch.setattr(qeq, "DENSE_ATOMS", 0)
    iterated = born_effective_charges(potential, graph)
    assert not torch.equal(iterated, dense)
    np.testing.assert_allclose(iterated, dense, atol=1e-6)
    np.testing.assert_allclose(polarizability(potential, graph), polarizable, atol=1e-6)


@pytest.mark.parametrize("kind", ["wire", "slab", "crystal"])
def test_born_charges_that_depend_on_the_cell_are_refused(kind: str) -> None:
    for settings in ({}, {"charge_feedback": "embedding"}, {"electrostatic_energy": "coulomb"}):
        potential = make_potential(**settings)
        assert not has_born_charges(potential, graph_of(potential, KINDS[kind]()))
        with pytest.raises(PropertyNotImplementedError, match="charge equilibration conducts"):
            born_effective_charges(potential, graph_of(potential, KINDS[kind]()))
        with pytest.raises(PropertyNotImplementedError, match="depend on the size of the cell"):
            PhiCalculator(potential, device="cpu").get_born_effective_charges(KINDS[kind]())
        assert has_born_charges(potential, graph_of(potential, dimer()))


@pytest.mark.parametrize("pbc", [False, True])
def test_one_atom_and_none(charged: Potential, bound: Potential, pbc: bool) -> None:
    charged = bound if pbc else charged
    ion = graph_of(charged, Atoms("O", cell=[6, 6, 6], pbc=pbc), charge=-1.0)
    np.testing.assert_allclose(born_effective_charges(charged, ion), [-np.eye(3)], atol=1e-12)
    nothing = graph_of(charged, Atoms(cell=[6, 6, 6], pbc=pbc))
    assert born_effective_charges(charged, nothing).shape == (0, 3, 3)
    if charged.config.head.name == "qeq":
        np.testing.assert_allclose(polarizability(charged, ion), np.zeros((3, 3)), atol=1e-12)
        assert torch.equal(polarizability(charged, nothing), torch.zeros(3, 3).double())


# --- polarizability ------------------------------------------------------------------------------


@pytest.mark.parametrize("charge", [0.0, 1.0])
@pytest.mark.parametrize("settings", [{}, {"atomic_dipoles": True}], ids=["qeq", "dipoles"])
def test_polarizability_is_the_derivative_of_the_dipole_by_the_field(
    settings: dict, charge: float
) -> None:
    potential = make_potential(**settings)
    atoms, step = dimer(), 1e-2
    alpha = polarizability(potential, graph_of(potential, atoms, charge=charge)).numpy()
    columns = []
    for direction in np.eye(3):
        up, down = (
            dipole_of(in_field(potential, atoms, s * step * direction, charge), atoms)
            for s in (1, -1)
        )
        columns.append((up - down) / (2 * step))
    np.testing.assert_allclose(alpha, np.stack(columns, axis=1), atol=1e-8)
    np.testing.assert_allclose(alpha, alpha.T, atol=1e-10)
    assert np.linalg.eigvalsh(alpha).min() > 0.01


def test_polarizability_is_minus_the_second_derivative_of_the_energy() -> None:
    potential, atoms, step = make_potential(), dimer(), 1e-2
    alpha = polarizability(potential, graph_of(potential, atoms)).numpy()
    for axis, direction in enumerate(np.eye(3)):
        below, here, above = (
            float(in_field(potential, atoms, s * step * direction).energy) for s in (-1, 0, 1)
        )
        curvature = -(above - 2 * here + below) / step**2
        assert alpha[axis, axis] == pytest.approx(curvature, rel=1e-5)


#: Charges that no field moves, and charges that do not minimize the energy in it.
RIGID = {
    "latent": ({"head": "latent"}, "no field moves the charges"),
    "solve": ({"head": "solve"}, "no field moves the charges"),
    "solve+coulomb": ({"head": "solve+coulomb"}, "no field moves the charges"),
    "dirichlet": ({"head": "dirichlet"}, "no field moves the charges"),
    "spectral": ({"head": "spectral"}, "no field moves the charges"),
    "coulomb": ({"electrostatic_energy": "coulomb"}, "do not minimize its whole energy"),
    "embedding": ({"charge_feedback": "embedding"}, "do not minimize its whole energy"),
    "network": ({"charge_feedback": "network"}, "do not minimize its whole energy"),
}


@pytest.mark.parametrize("kind", RIGID)
def test_polarizability_that_is_not_that_of_the_energy_is_refused(kind: str) -> None:
    settings, reason = RIGID[kind]
    calc = PhiCalculator(make_potential(**settings), device="cpu")
    with pytest.raises(PropertyNotImplementedError, match=reason):
        calc.get_polarizability(dimer())


@pytest.mark.parametrize("kind", ["coulomb", "embedding", "network"])
def test_fields_in_which_the_dipole_is_no_derivative_are_refused(kind: str) -> None:
    calc = PhiCalculator(make_potential(**RIGID[kind][0]), device="cpu", external_field=[0, 0, 0.1])
    with pytest.raises(CalculatorSetupError, match=r"dipole moment would differ from −∂E/∂field"):
        calc.get_potential_energy(dimer())


@pytest.mark.parametrize("settings", [{}, *(RIGID[head][0] for head in ("latent", "solve"))])
def test_dipole_is_minus_the_derivative_of_the_energy_by_the_field(settings: dict) -> None:
    atoms, step = dimer(), 1e-3
    potential = make_potential(**settings)
    potential.embedding.mul_(0.3)  # charges and forces that a calculator does not refuse
    calc = PhiCalculator(potential, device="cpu", dtype="float64")
    dipole = calc.get_dipole_moment(atoms)
    for axis in range(3):
        energies = []
        for sign in (1, -1):
            atoms.info["external_field"] = sign * step * np.eye(3)[axis]
            energies.append(calc.get_potential_energy(atoms))
        assert -(energies[0] - energies[1]) / (2 * step) == pytest.approx(dipole[axis], abs=1e-6)


def test_polarizability_in_a_field_is_that_without() -> None:
    """Charges of QEq are linear in the field, whatever field there is."""
    potential = make_potential()
    graph, other = (graph_of(potential, dimer(), field=f) for f in (None, np.array([1, 2, -1])))
    torch.testing.assert_close(polarizability(potential, graph), polarizability(potential, other))


@pytest.mark.parametrize("kind", ["wire", "slab", "crystal"])
def test_polarizability_of_a_periodic_structure_is_refused(kind: str) -> None:
    atoms, charged = KINDS[kind](), make_potential()
    with pytest.raises(PropertyNotImplementedError, match="along periodic axes .pbc="):
        polarizability(charged, graph_of(charged, atoms))
    with pytest.raises(PropertyNotImplementedError, match="along periodic axes .pbc="):
        PhiCalculator(charged, device="cpu").get_polarizability(atoms)


# --- potential -----------------------------------------------------------------------------------


@pytest.mark.parametrize("charge", [0.0, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_potential_is_the_derivative_of_the_energy_by_the_charges(
    charged: Potential, kind: str, charge: float
) -> None:
    graph = graph_of(charged, KINDS[kind](), charge=charge)
    charges = predict(charged, graph).charges.requires_grad_()
    widths = charged.smearing(graph)
    energy = CoulombSum(graph, widths).energy(charges).sum()
    (slope,) = torch.autograd.grad(energy, charges)
    found = electrostatic_potential(charged, graph)
    np.testing.assert_allclose(found, slope, atol=1e-8)


# --- by the calculator ---------------------------------------------------------------------------


@pytest.fixture
def calc(charged: Potential) -> PhiCalculator:
    return PhiCalculator(charged, device="cpu", dtype="float64")


def test_calculator_gives_what_the_functions_give(charged: Potential, calc: PhiCalculator):
    atoms = dimer()
    graph = graph_of(charged, atoms)
    born = calc.get_born_effective_charges(atoms)
    assert (type(born), born.shape, born.dtype) == (np.ndarray, (6, 3, 3), np.float64)
    np.testing.assert_allclose(born, born_effective_charges(charged, graph), atol=1e-10)
    if charged.config.head.name == "qeq":
        alpha = calc.get_polarizability(atoms)
        np.testing.assert_allclose(alpha, polarizability(charged, graph), atol=1e-10)
    expected = electrostatic_potential(charged, graph)
    np.testing.assert_allclose(calc.get_electrostatic_potential(atoms), expected, atol=1e-10)


def test_calculator_uses_charge_and_field_of_the_structure(calc: PhiCalculator) -> None:
    atoms = dimer()
    atoms.info["charge"] = 1
    born = calc.get_born_effective_charges(atoms)
    np.testing.assert_allclose(born.sum(0), np.eye(3), atol=1e-10)
    atoms.info.clear()
    before = calc.get_electrostatic_potential(atoms)
    atoms.info["external_field"] = [0.0, 0.0, 0.5]
    moved = np.abs(calc.get_electrostatic_potential(atoms) - before).max() > 0.01
    assert moved == (calc.potential.config.head.name != "latent")
    atoms.info["external_field"] = [0.0, 0.0, np.nan]
    with pytest.raises(InputError, match="three finite numbers"):
        calc.get_born_effective_charges(atoms)


GETTERS = ["get_born_effective_charges", "get_polarizability", "get_electrostatic_potential"]


@pytest.mark.parametrize("getter", GETTERS)
def test_without_a_structure_the_last_one_counts(getter: str) -> None:
    calc = PhiCalculator(make_potential(), device="cpu", dtype="float64")
    with pytest.raises(InputError, match="pass atoms, or compute an energy first"):
        getattr(calc, getter)()
    atoms = dimer()
    energy = calc.get_potential_energy(atoms)
    np.testing.assert_array_equal(getattr(calc, getter)(), getattr(calc, getter)(atoms))
    assert calc.results["energy"] == energy


@pytest.mark.parametrize("getter", GETTERS)
def test_models_without_charges_have_no_response(getter: str) -> None:
    calc = PhiCalculator(make_potential(head="none"), device="cpu")
    with pytest.raises(PropertyNotImplementedError, match="no charges"):
        getattr(calc, getter)(dimer())


def test_float32_networks_respond_alike(charged: Potential, calc: PhiCalculator) -> None:
    single = PhiCalculator(charged, device="cpu", dtype="float32")
    for getter in GETTERS:
        if getter == "get_polarizability" and charged.config.head.name != "qeq":
            continue
        expected = getattr(calc, getter)(dimer())
        np.testing.assert_allclose(getattr(single, getter)(dimer()), expected, rtol=1e-4, atol=1e-4)


def test_dipoles_of_atoms_are_part_of_the_dipole_moment() -> None:
    """By themselves, in batches, and as the derivative of the energy by the field."""
    potential = make_potential(atomic_dipoles=True)
    calc, atoms, step = PhiCalculator(potential, device="cpu", dtype="float64"), dimer(), 1e-3
    dipole = calc.get_dipole_moment(atoms)
    of_charges = calc.get_charges(atoms) @ (atoms.positions - atoms.get_center_of_mass())
    assert np.abs(dipole - of_charges).max() > 1e-3
    for each in calc.batch([atoms, molecule("H2O"), atoms]):
        if len(each["charges"]) == len(atoms):
            np.testing.assert_allclose(each["dipole"], dipole, atol=1e-10)
    slope = []
    for direction in np.eye(3):
        up, down = (in_field(potential, atoms, s * step * direction) for s in (1, -1))
        slope.append(float(up.energy - down.energy) / (2 * step))
    np.testing.assert_allclose(-np.array(slope), dipole, atol=1e-8)
