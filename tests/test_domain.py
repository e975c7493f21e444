"""Structures outside a model and results that cannot be: warnings, errors, silence elsewhere."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed, InputError

from phicalc import CommitteeCalculator, PhiCalculator, available_models
from phicalc.checkpoint import ModelCard, load_model, save_model
from phicalc.derivatives import predict
from phicalc.graph import connected_parts, from_ase
from phicalc.inference.closeness import PLAUSIBLE, PairWatch, closest
from phicalc.inference.concerns import DomainError, DomainWarning, ImplausibleResultError
from phicalc.inference.domain import domain_of
from phicalc.potential import build_potential
from phicalc.skin import NeighborSearch
from phicalc.structures import water_box

from .tiny import flat_config


def potential(**settings: object):
    defaults = {"elements": ("H", "O", "Na", "Cl"), "cutoff": 3.0, "channels": 4, "l_max": 1,
                "layers": 1, "correlation": 1, "head": "latent"}  # fmt: skip
    return build_potential(flat_config(**{**defaults, **settings}), seed=1)


@pytest.fixture
def model(tmp_path):
    """Save a model with a card; return a function that makes calculators of it."""

    def make(strict=False, stress: float | None = None, charges=(0.0, 0.0), scale=1.0, **known):
        training = {} if stress is None else {"config": {"loss": {"stress": {"weight": stress}}}}
        card = ModelCard(
            name="made", charge_range=charges, data={"domain": known}, training=training
        )
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        large = potential()
        large.linear_readout.weight.data.mul_(scale)
        large.head.readout.weight.data.mul_(scale)
        save_model(folder, large, card)
        return PhiCalculator(folder, device="cpu", strict=strict)

    return make


def overlapping() -> Atoms:
    """Two waters whose oxygen atoms overlap across the boundary of the box."""
    atoms = molecule("H2O") + molecule("H2O")
    atoms.set_cell([9, 9, 9])
    atoms.pbc = True
    atoms.center()
    atoms.positions[:3, 0] += 0.1 - atoms.positions[0, 0]
    atoms.positions[3:, 0] += 8.6 - atoms.positions[3, 0]
    atoms.positions[3:, 1] += 0.2
    return atoms


OUTSIDE = {
    "distance": (overlapping, {}, r"atoms \d \(.\) and \d \(.\) \(a periodic image\) are 0\.\d* Å"),
    "nearest": (
        lambda: Atoms("Cl2", [[0, 0, 0], [0, 0, 2.0]]), {"nearest_distances": {"Cl-Cl": 3.0}},
        r"atoms 0 \(Cl\) and 1 \(Cl\) are 2 Å apart, closer than 2\.7 Å",
    ),
    "radical": (lambda: molecule("OH"), {"closed_shell": True}, "HO .*odd number of electrons .9."),
    "unknown radical": (lambda: molecule("OH"), {}, "may hold no radicals"),
    "ion": (
        lambda: Atoms("OH2", molecule("H2O").positions, info={"charge": 1}),
        {"closed_shell": True, "charges": (-1.0, 1.0)}, "odd number of electrons",
    ),
    "charge": (lambda: Atoms("H", info={"charge": 1}), {}, "total charge 1 e: model 'made' was tr"),
    "crystal": (lambda: bulk("NaCl", "rocksalt", a=5.6), {"periodic": False}, "isolated structur"),
    "slab": (
        lambda: Atoms("Na2", [[0, 0, 0], [0, 0, 3.1]], cell=[4, 4, 9], pbc=(1, 1, 0)),
        {"periodic": False}, "isolated structures alone",
    ),
    "density": (
        lambda: bulk("NaCl", "rocksalt", a=5.95), {"periodic": True, "densities": (2.1, 2.4)},
        r"density is 1\.84 g/cm³: model 'made' was trained on densities from 2\.10 to 2\.40",
    ),
    "environment": (
        lambda: molecule("H2O2"), {"environments": ("O(HH)", "H(O)")},
        r"atom 0 \(O\) is bonded to H and O, as no O in the training data of model 'made' is",
    ),
    "ion pair": (
        lambda: Atoms("NaH", [[0, 0, 0], [0, 0, 2.0]]), {"environments": ("Na(Cl)", "H(Na)")},
        r"atom 0 \(Na\) is bonded to H, as no Na",
    ),
    "force": (
        lambda: molecule("H2O"), {"largest_force": 0.0, "scale": 20.0},
        r"the force on atom \d \(.\) is .* eV/Å, far above all that model 'made' was trained on",
    ),
    "atomic charge": (
        lambda: molecule("H2O"), {"largest_charge": 0.0, "scale": 2.0},
        r"the charge of atom \d \(.\) is .* e, far above all that model 'made' was trained on",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("error::UserWarning", "ignore:the (force on|charge of) atom")
@pytest.mark.parametrize("kind", OUTSIDE)
def test_structures_outside_the_model_warn_once(model, kind: str) -> None:
    make, known, reason = OUTSIDE[kind]
    calc, atoms = model(**known), make()
    with pytest.warns(DomainWarning, match=reason) as found:
        calc.get_potential_energy(atoms)
    assert all("\n" not in str(each.message) for each in found)
    atoms.positions += 0.01
    calc.get_forces(atoms)  # a second warning would be an error here
    with pytest.raises(DomainError, match=reason):
        model(strict=True, **known).get_potential_energy(make())


def test_stress_of_a_model_without_stress(model) -> None:
    salt = bulk("NaCl", "rocksalt", a=5.6)
    model(stress=0.0).get_forces(salt)
    with pytest.warns(DomainWarning, match="not trained on stress; do not rely on it to relax"):
        model(stress=0.0).get_stress(salt)
    with pytest.warns(DomainWarning, match="not trained on stress"):
        model(stress=0.0).batch([salt], stress=True)
    model(stress=1.0).get_stress(salt)
    model().get_stress(salt)  # nobody knows


def test_every_way_to_a_result_asks(model) -> None:
    close = Atoms("Cl2", [[0, 0, 0], [0, 0, 1.0]])
    for ask in (
        lambda calc: calc.get_forces(close),
        lambda calc: calc.batch([molecule("H2O"), close]),
        lambda calc: calc.get_born_effective_charges(close),
        lambda calc: calc.get_electrostatic_potential(close),
    ):
        with pytest.raises(DomainError, match="1 Å apart"):
            ask(model(strict=True))


def test_strict_is_a_parameter(model) -> None:
    calc, close = model(), Atoms("Cl2", [[0, 0, 0], [0, 0, 1.0]])
    calc.set(strict=True)
    with pytest.raises(DomainError, match="strict=True"):
        calc.get_potential_energy(close)
    assert calc.results == {}
    assert issubclass(DomainError, InputError)
    calc.set(strict=False)
    with pytest.warns(DomainWarning, match="1 Å apart"):
        calc.get_potential_energy(close)
    with pytest.raises(InputError, match="strict must be True or False, got 1"):
        calc.set(strict=1)


def test_a_committee_warns_once_for_all_members(tmp_path) -> None:
    for member in range(3):
        folder = tmp_path / f"member_{member}" / "model"
        made = potential()
        made.linear_readout.weight.data.mul_(1 + 0.01 * member)
        save_model(folder, made, ModelCard(name="m", charge_range=(0, 0)))
    calc = CommitteeCalculator(tmp_path)
    with pytest.warns(DomainWarning) as found:
        calc.get_potential_energy(Atoms("Cl2", [[0, 0, 0], [0, 0, 1.0]]))
    assert len([each for each in found if "1 Å apart" in str(each.message)]) == 1
    with pytest.raises(DomainError, match="1 Å apart"):
        CommitteeCalculator(tmp_path, strict=True).get_potential_energy(
            Atoms("Cl2", [[0, 0, 0], [0, 0, 1.0]])
        )


SIZES = {
    "forces": lambda p: p.linear_readout.weight.data.mul_(1e9),
    "charges": lambda p: p.head.readout.weight.data.mul_(1e4),
}


@pytest.mark.parametrize("kind", SIZES)
def test_results_beyond_every_limit_are_refused(kind: str) -> None:
    made = potential()
    SIZES[kind](made)
    calc = PhiCalculator(made, device="cpu")
    atoms = molecule("H2O")
    with pytest.raises(ImplausibleResultError, match="no result is given. Check the positions"):
        calc.get_potential_energy(atoms)
    assert calc.results == {}
    with pytest.raises(CalculationFailed, match="which no structure has"):
        calc.batch([atoms, molecule("H2")])
    atoms.positions[1] = atoms.positions[0] + (0, 0.3, 0)
    with pytest.raises(ImplausibleResultError, match=r"atoms 0 \(O\) and 1 \(H\) are 0.3 Å apart"):
        calc.get_potential_energy(atoms)


def test_overlapping_waters_give_no_number_in_silence() -> None:
    calc = PhiCalculator("water", device="cpu")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            energy = calc.get_potential_energy(overlapping())
        except ImplausibleResultError:
            return
    assert any("apart" in str(each.message) for each in found)
    assert abs(energy) < 1e4


@pytest.mark.parametrize("name", ["water", "water-small", "water-phi"])
def test_water_stays_silent(name: str) -> None:
    atoms = water_box(64, seed=1)
    calc = PhiCalculator(name, device="cpu")
    for _ in range(2):
        atoms.rattle(0.01, seed=3)
        calc.get_forces(atoms)  # warnings are errors here


@pytest.mark.parametrize("name", ["water-phi", "dipeptides-phi", "dipeptides", "organics"])
def test_far_fragments_with_fractions_of_a_charge_warn(name: str) -> None:
    pair = molecule("H2O") + molecule("H2O")
    if name != "water-phi":
        pair = molecule("CH3CONH2") + molecule("H2O")
    elif name == "water-phi":
        pair.positions[4] *= 0.95
    pair.positions[-3:] += (0, 0, 40.0)
    calc = PhiCalculator(name, device="cpu")
    net = calc.get_charges
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        charges = net(pair)
    fraction = abs(charges[-3:].sum())
    said = [str(each.message) for each in found if "net charge of" in str(each.message)]
    assert len(said) == (1 if fraction > 0.02 else 0)
    if name.startswith("dipeptides"):
        assert fraction > 0.02
        assert "shifted together" in said[0]
    pair.set_array("fragments", np.array([0] * (len(pair) - 3) + [1] * 3))
    pair.info["fragment_charges"] = [0.0, 0.0]
    calc = PhiCalculator(name, device="cpu")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert calc.get_charges(pair)[-3:].sum() == pytest.approx(0, abs=1e-6)
    assert not any("net charge" in str(each.message) for each in found)


SHIPPED = {
    "radical": ("water", lambda: molecule("OH"), "odd number of electrons"),
    "crystal": ("organics", lambda: bulk("NaCl", "rocksalt", a=5.6), "isolated structures alone"),
    "charge": ("dipeptides", lambda: Atoms("O", info={"charge": -2}), "total charge -2 e"),
    "near": (
        "water-small", lambda: Atoms("O2", [[0, 0, 0], [0, 0, 1.9]], info={"charge": 0}),
        r"are 1\.9 Å apart, closer than 2\.03 Å",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SHIPPED)
def test_cards_of_shipped_models_tell_their_domain(kind: str) -> None:
    name, make, reason = SHIPPED[kind]
    with pytest.raises(DomainError, match=reason):
        PhiCalculator(name, device="cpu", strict=True).get_potential_energy(make())


def test_open_shells_of_a_model_that_knows_them_are_silent() -> None:
    card = load_model("nacl-clusters")[1]
    assert card.domain.closed_shell is False
    assert all(load_model(name)[1].domain.periodic is not None for name in available_models())


@pytest.mark.parametrize("length", [2.0, 2.2, 2.5])
@pytest.mark.parametrize("charge", [0.0, -1.0])
def test_charges_keep_their_sum_in_tiny_cells(length: float, charge: float) -> None:
    """The features there are so far from training that all shares of the charge underflow."""
    model, _ = load_model("water-phi", device="cpu", dtype="float64")
    atoms = Atoms("O", cell=[length] * 3, pbc=True)
    graph = model.prepare(from_ase(atoms, model.cutoff, total_charge=charge))
    assert float(predict(model, graph).charges.sum()) == pytest.approx(charge, abs=1e-6)


def test_tiny_cells_give_no_number_in_silence() -> None:
    calc = PhiCalculator("water-phi", device="cpu")
    with pytest.raises(ImplausibleResultError, match="no result is given"):
        calc.get_potential_energy(Atoms("O", cell=[2.0] * 3, pbc=True))


def test_connected_parts() -> None:
    chain = Atoms("H30", [[0, 0, float(z)] for z in range(30)])
    order = np.random.default_rng(1).permutation(30)
    chain.positions = chain.positions[order]
    graph = from_ase(chain, 1.2)
    assert not connected_parts(graph).any()
    chain.positions[chain.positions[:, 2] > 14.5] += 10
    parts = connected_parts(from_ase(chain, 1.2)).numpy()
    assert len(set(parts)) == 2
    assert len(set(parts[chain.positions[:, 2] < 14.5])) == 1
    assert connected_parts(from_ase(Atoms(), 1.2)).shape == (0,)


def test_the_closest_pair_is_measured_by_its_elements() -> None:
    atoms = Atoms("NaClH2", [[0, 0, 0], [0, 0, 1.5], [5, 0, 0], [5, 0, 0.7]])
    pair = closest(from_ase(atoms, 3.0), PLAUSIBLE)
    assert pair.text(atoms) == "atoms 0 (Na) and 1 (Cl) are 1.5 Å apart"
    atoms.positions[1, 2] = 2.4
    assert closest(from_ase(atoms, 3.0), PLAUSIBLE) is None


def test_domain_of_a_card() -> None:
    known = {"periodic": True, "closed_shell": True, "nearest_distances": {"H-O": 2.0}}
    domain = domain_of(ModelCard(name="m", charge_range=(0, 1), data={"domain": known}))
    assert (domain.record.periodic, domain.record.closed_shell) == (True, True)
    assert domain.stress is None
    assert domain.limits()[1, 8] == domain.limits()[8, 1] == pytest.approx(1.8)
    assert torch.equal(domain.limits()[11, 17], PLAUSIBLE[11, 17])  # no such pair in the data
    nothing = domain_of(ModelCard(name="m"))
    assert nothing.nearest is None
    assert nothing.record.periodic is None


def test_watching_a_structure_that_moves_finds_what_looking_once_does() -> None:
    search, watch = NeighborSearch(3.0), PairWatch(PLAUSIBLE)
    atoms, found = Atoms("NaClOH", [[0, 0, 0], [0, 0, 3.0], [2.2, 0, 0], [2.2, 0, 1.2]]), []
    for step in range(40):
        atoms.positions[1, 2] = 3.0 - 0.04 * step  # comes too near, while pairs are only filtered
        graph = from_ase(atoms, 3.0, search=search)
        found.append(watch.closest(graph, search))
        assert found[-1] == closest(from_ase(atoms, 3.0), PLAUSIBLE)
        other = atoms.copy()
        other.symbols[2:] = "Na"  # the same places, larger atoms
        graph = from_ase(other, 3.0, search=search)
        assert watch.closest(graph, search) == closest(from_ase(other, 3.0), PLAUSIBLE)
        assert watch.closest(graph, search) is not None
    assert found[20] is None
    assert found[-1] is not None
    assert search.searches < 10
