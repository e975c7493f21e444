"""What training data cover: made from frames, kept in the card, read strictly, said in words."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.card import ModelCard
from phicalc.checkpoint import available_models, load_model, read_card, save_model
from phicalc.data.config import KeysConfig
from phicalc.data.frames import LabelledAtoms, label_atoms
from phicalc.domain import Domain, describe_domain, environments_of
from phicalc.domain.environments import bonded_to, environments_of_frames
from phicalc.domain.frames import density_of, domain_of_frames
from phicalc.graph import from_ase
from phicalc.info import describe_model
from phicalc.structures import water_box
from phicalc.training import config_from_dict, train
from phicalc.training import run as run_module
from phicalc.training.domain import renew_domain

from .training.conftest import CARBON_CHAIN, TINY_MODEL

CUTOFF = 4.0


def names_of(atoms: Atoms, cutoff: float = CUTOFF) -> list[str]:
    found = environments_of(from_ase(atoms, cutoff))
    return [found.names[number] for number in found.member]


def test_environments_name_the_bonded_elements() -> None:
    assert names_of(molecule("CH3CH2OH")) == [
        "C(HHHC)", "C(HHCO)", "O(HC)", *["H(O)"], *["H(C)"] * 5,
    ]  # fmt: skip
    assert set(names_of(water_box(8, seed=1))) == {"O(HH)", "H(O)"}
    assert names_of(Atoms("Ar")) == ["Ar()"]
    assert environments_of(from_ase(Atoms(), CUTOFF)).names == ()


def test_environments_of_ions_do_not_count_neighbors() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    assert set(names_of(salt, 4.5)) == {"Na(NaCl)", "Cl(Na)"}
    salt.rattle(0.2, seed=1)
    del salt[3]
    assert set(names_of(salt, 4.5)) <= {"Na(NaCl)", "Na(Cl)", "Cl(Na)"}


def test_environments_do_not_depend_on_order_rotation_and_images() -> None:
    atoms = molecule("CH3CONH2")
    turned = atoms.copy()
    turned.rotate(50, (1, 2, 3))
    order = np.random.default_rng(1).permutation(len(atoms))
    assert [names_of(turned[order])[i] for i in np.argsort(order)] == names_of(atoms)
    box = water_box(8, seed=1)
    box.positions += 5.0
    box.wrap()
    assert sorted(names_of(box)) == sorted(["O(HH)"] * 8 + ["H(O)"] * 16)


def test_the_first_atom_outside() -> None:
    found = environments_of(from_ase(molecule("H2O2"), CUTOFF))
    assert found.first_outside({"O(HO)", "H(O)"}) is None
    assert found.first_outside({"H(O)"}) == 0
    assert found.first_outside({"O(HO)"}) == 2
    assert bonded_to("C(HHHCl)") == "3 H and Cl"
    assert bonded_to("H()") == "nothing"


def stretched(atom: int, factor: float, name: str = "CH4") -> Atoms:
    """Return a molecule with the bond between its first atom and another stretched."""
    atoms = molecule(name)
    atoms.positions[atom] += (factor - 1) * (atoms.positions[atom] - atoms.positions[0])
    return atoms


def graphs_of(*frames: Atoms) -> list:
    return [from_ase(atoms, CUTOFF) for atoms in frames]


def test_a_stretched_bond_makes_no_other_molecules_known() -> None:
    methane, between, apart = molecule("CH4"), stretched(1, 1.32), stretched(1, 1.7)
    assert names_of(between)[:2] == ["C(HHH)", "H()"]  # 1.34 times the sum of the radii
    assert environments_of_frames(graphs_of(methane, between)) == {"C(HHHH)", "H(C)"}
    known = environments_of_frames(graphs_of(methane, apart))
    assert known == {"C(HHHH)", "H(C)", "C(HHH)", "H()"}  # no bond any more


def test_atoms_that_can_be_read_in_several_ways_are_inside_if_one_is_known() -> None:
    known = {"C(HHHH)", "H(C)"}
    found = environments_of(from_ase(stretched(1, 1.32), CUTOFF))
    assert found.first_outside(known) is None
    assert found.outside(known) == found.sure - known == frozenset()
    assert environments_of(from_ase(stretched(1, 1.7), CUTOFF)).outside(known) == {"C(HHH)", "H()"}
    assert found.outside({"C(HH)", "H(C)"}) == {"C(HHH)"}


def test_training_frames_are_inside_however_they_are_read() -> None:
    alone = stretched(1, 1.32)  # never in its minimum
    assert environments_of_frames(graphs_of(alone)) == {"C(HHH)", "H(C)"}
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    frames = []
    for seed in range(5):
        frames += [salt.copy(), molecule("CH3CONH2"), water_box(8, density=1.2, seed=seed)]
        for atoms in frames[-3:]:
            atoms.rattle(0.15, seed=seed)
    known = environments_of_frames(graphs_of(*frames))
    assert all(environments_of(graph).first_outside(known) is None for graph in graphs_of(*frames))


def test_ions_in_reach_do_not_hide_the_other_neighbors() -> None:
    atoms = molecule("CH4") + Atoms("Na", [[0, 0, 3.6]])  # 1.5 times the sum is 3.63
    found = environments_of(from_ase(atoms, CUTOFF))
    assert found.first_outside({"C(HHHH)", "H(C)", "Na()"}) is None
    assert found.first_outside({"C(HHH)", "H(C)", "Na()"}) == 0


def frame(atoms: Atoms, charge: float = 0.0, **labels: object) -> LabelledAtoms:
    atoms.info.update(labels, charge=charge)
    return label_atoms(atoms, KeysConfig())


def domain_of(*frames: LabelledAtoms, stress: bool = False) -> Domain:
    graphs = [from_ase(each.atoms, CUTOFF) for each in frames]
    return domain_of_frames(frames, graphs, stress=stress)


def test_a_domain_is_what_the_frames_hold() -> None:
    water = molecule("H2O")
    water.arrays["forces"] = np.array([[3.0, 4.0, 0], [0, 0, 1], [0, 0, 0]])
    water.arrays["charges"] = np.array([-0.8, 0.4, 0.4])
    one = frame(water, temperature=300)
    box = water_box(8, density=0.9, seed=1)
    box.info["stress"] = np.zeros(6)
    other = frame(box, temperature=420.0)
    domain = domain_of(one, other, stress=True)
    assert (domain.frames, domain.elements) == (2, ("H", "O"))
    assert domain.environments == ("H(O)", "O(HH)")
    assert set(domain.nearest_distances or ()) == {"H-H", "H-O", "O-O"}
    shortest = min(each.get_all_distances(mic=True)[0, 1] for each in (water, box))
    assert domain.nearest_distances["H-O"] == pytest.approx(shortest, abs=1e-4)
    assert (domain.periodic, domain.isolated, domain.closed_shell) == (True, True, True)
    assert domain.densities == pytest.approx((density_of(box),) * 2, abs=1e-3)
    assert (domain.largest_force, domain.largest_charge) == (5.0, 0.8)
    assert (domain.temperatures, domain.charges) == ((300.0, 420.0), (0.0, 0.0))
    assert domain.stress is True
    assert domain_of(one, other).stress is False  # it has no weight
    assert domain_of(one, stress=True).stress is False  # no frame has any


def test_facts_that_no_frame_has_stay_unknown() -> None:
    domain = domain_of(frame(molecule("OH")), frame(molecule("H2O"), charge=1.0))
    assert domain.closed_shell is False
    assert domain.charges == (0.0, 1.0)
    assert (domain.periodic, domain.isolated) == (False, True)
    unknown = (domain.densities, domain.temperatures, domain.largest_force, domain.largest_charge)
    assert unknown == (None,) * 4
    assert set(domain.to_dict()) == {
        "frames", "elements", "environments", "nearest_distances", "charges", "periodic",
        "isolated", "closed_shell", "stress",
    }  # fmt: skip
    assert Domain.from_data({"domain": domain.to_dict()}) == domain


def test_density_takes_standard_masses() -> None:
    heavy = water_box(8, density=1.0, seed=1)
    heavy.set_masses(2 * heavy.get_masses())
    assert density_of(heavy) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"preiodic": True}, "data.domain.*preiodic.*periodic"),
        ({"periodic": 1}, "data.domain.periodic.*true or false"),
        ({"densities": [2.0, 1.0]}, "data.domain.densities.*ascending"),
        ({"nearest_distances": {"H-O": -1}}, "data.domain.nearest_distances.H-O.*positive"),
        ({"nearest_distances": {"HO": 1.0}}, "pairs such as 'H-O', got 'HO'"),
        ({"nearest_distances": {"H-Xx": 1.0}}, "Xx: no chemical symbols"),
        ({"elements": ["Qq"]}, "Qq: no chemical symbols"),
        ({"largest_force": "3"}, "data.domain.largest_force.*a number"),
    ],
)
def test_cards_are_read_strictly(known: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ModelCard(name="m", data={"domain": known})


def test_cards_without_a_domain_know_nothing_but_the_charges() -> None:
    assert ModelCard(name="m").domain == Domain()
    assert ModelCard(name="m", charge_range=(-1, 1)).domain == Domain(charges=(-1.0, 1.0))
    assert describe_domain(Domain()) == {}


def test_words() -> None:
    known = Domain(
        frames=360, elements=("H", "O"), densities=(0.85, 1.15), temperatures=(250.0, 420.0),
        periodic=True, isolated=False, charges=(0.0, 0.0), closed_shell=True, stress=False,
        nearest_distances={"O-O": 2.35, "H-O": 0.885}, environments=("H(O)", "O(HH)"),
        largest_force=6.03, largest_charge=0.4,
    )  # fmt: skip
    assert describe_domain(known) == {
        "trained on": "360 frames of H O; periodic structures; density 0.85 to 1.15 g/cm³; "
        "250 to 420 K; total charge 0 e; closed shells",
        "not trained on": "structures with a total charge, radicals, isolated molecules and "
        "clusters, stress (pressure, cells)",
        "nearest pairs": "H–O 0.89, O–O 2.35 Å",
        "environments": "H(O), O(HH)",
        "largest labels": "force 6.03 eV/Å, charge of an atom 0.40 e",
    }
    many = Domain(environments=tuple(f"C({'H' * n})" for n in range(20)))
    assert describe_domain(many)["environments"].startswith("20 kinds of bonded atoms, such as C()")


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a model trained for a moment."""
    for name in ("plot_curves", "plot_parity"):
        monkeypatch.setattr(run_module, name, lambda *_: None)
    data = tmp_path / CARBON_CHAIN.name
    shutil.copy(CARBON_CHAIN, data)
    settings = {
        "output": str(tmp_path / "run"), "data": {"train": [str(data)], "split": "key"},
        "model": {"elements": TINY_MODEL["elements"], "cutoff": 3.0, "backbone": {
            "name": "nequip", "layers": 1, "channels": 4, "l_max": 1, "correlation": 1}},
        "max_epochs": 1, "batch_size": 8, "device": "cpu", "compile": False,
    }  # fmt: skip
    return train(config_from_dict(settings), None, lambda _: None).model


def test_training_writes_the_domain_and_it_can_be_made_again(trained: Path) -> None:
    card = read_card(trained)
    domain = card.domain
    assert domain.frames == card.data["counts"]["train"]
    assert domain.elements == ("H", "C")
    assert domain.charges == card.charge_range == (0.0, 1.0)
    assert (domain.periodic, domain.isolated, domain.stress) == (False, True, False)
    assert {"C(CC)", "H(C)"} <= set(domain.environments or ())
    said = describe_model(str(trained))
    assert "; isolated structures; 300 to 900 K; total charge 0 to 1 e" in said["trained on"]
    assert "data domain" not in said
    weights = (trained / "weights.safetensors").read_bytes()
    potential, _ = load_model(trained)
    save_model(trained, potential, replace(card, data={**card.data, "domain": {"periodic": True}}))
    assert renew_domain(trained, trained.parents[1]).domain == domain
    assert read_card(trained) == card
    assert (trained / "weights.safetensors").read_bytes() == weights


def test_a_domain_is_not_made_of_other_data(trained: Path) -> None:
    data = trained.parents[1] / CARBON_CHAIN.name
    data.write_text(data.read_text().replace("-1.", "-1.0"))
    with pytest.raises(ValueError, match="not those that 'run' was trained on"):
        renew_domain(trained, trained.parents[1])
    potential, card = load_model(trained)
    save_model(trained, potential, replace(card, training={}))
    with pytest.raises(ValueError, match="does not say which data"):
        renew_domain(trained)


@pytest.mark.parametrize("name", sorted(available_models()))
def test_shipped_models_know_their_domain(name: str) -> None:
    domain = read_card(name).domain
    known = (domain.frames, domain.elements, domain.environments, domain.nearest_distances)
    assert all(known)
    assert domain.largest_force
    assert (domain.densities is not None) == domain.periodic
    assert "trained on" in describe_model(name)
