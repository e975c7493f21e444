"""The potential and its derivatives: settings, precision, terms, smoothness, compilation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.derivatives import Prediction, predict
from phicalc.graph import from_ase
from phicalc.potential import Potential, PotentialConfig, build_potential

from .tiny import flat_config

FLAT = {"elements": ("H", "O"), "channels": 8, "cutoff": 4.0, "average_neighbors": 10.0}
WATER = flat_config(**FLAT)


def run(potential: Potential, atoms: Atoms, **options: bool) -> Prediction:
    return predict(potential, potential.prepare(from_ase(atoms, potential.cutoff)), **options)


def test_config_survives_plain_types() -> None:
    config = flat_config(elements=("H", "O"), reference_energies=(-1.5, 2.5), head="none")
    assert PotentialConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"elements": ("Xx",)}, "distinct chemical symbols"),
        ({"elements": ("H", "H")}, "distinct chemical symbols"),
        ({"elements": ()}, "distinct chemical symbols"),
        ({"reference_energies": (1.0,)}, "one number for each"),
        ({"backbone": {"name": "nequip", "l_max": 4}}, r"backbone.l_max' must be in \[0, 3\]"),
        (
            {"backbone": {"name": "nequip", "l_max": 1, "hidden_l_max": 2}},
            "hidden_l_max must be 0 to l_max",
        ),
        ({"backbone": {"name": "nequip", "correlation": 4}}, "correlation' must be in"),
        ({"head": "none", "feedback": "network"}, "need a head with charges"),
        ({"head": "none", "atomic_dipoles": True}, "need a head with charges"),
        ({"head": {"name": "latent", "hardness": "environment"}}, "unknown key 'head.hardness'"),
        ({"head": {"name": "dirichlet", "trained_smearing": True}}, "unknown key 'head.trained_sm"),
        ({"head": "QEq"}, "unknown head 'QEq'. Did you mean 'qeq'"),
        ({"head": {"name": "qeq", "energy": "QEq"}}, "Did you mean 'qeq'"),
        ({"feedback": "netwrok"}, "Did you mean 'network'"),
        ({"backbone": {"name": "nequip", "layers": 1.5}}, "must be a whole number"),
        ({"backbone": {"name": "nequip", "channels": "8"}}, "'backbone.channels' must be a whole"),
        ({"head": 3}, "must be a name, or a section"),
        ({"head": {"hardness": "element"}}, "must be a name, or a section"),
        ({"cutoff": 0.0}, "'cutoff' must be positive"),
        ({"energy_scale": float("nan")}, "energy_scale"),
    ],
)
def test_config_refuses_nonsense(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PotentialConfig(**{"elements": ("H", "O"), **settings})


def test_vectors_need_a_backbone_that_has_some() -> None:
    config = flat_config(elements=("H",), l_max=0, atomic_dipoles=True)
    with pytest.raises(ValueError, match="l_max of at least 1"):
        build_potential(config)


def test_config_names_unknown_keys() -> None:
    with pytest.raises(ValueError, match="wings"):
        PotentialConfig.from_dict({"elements": ["H"], "wings": 2})


@pytest.mark.parametrize("head", ["none", "qeq", "latent"])
def test_total_charge_is_an_input_if_wanted(head: str) -> None:
    energies = {}
    for embedded in (False, True):
        config = {**WATER.to_dict(), "head": head, "total_charge_embedding": embedded}
        potential = build_potential(PotentialConfig.from_dict(config))
        for charge in (0.0, 1.0):
            atoms = molecule("H2O")
            atoms.info["charge"] = charge
            energies[embedded, charge] = float(run(potential, atoms).terms["short_range"])
    assert energies[False, 0] == energies[False, 1] == pytest.approx(energies[True, 0])
    assert abs(energies[True, 1] - energies[True, 0]) > 1e-3


def test_weights_follow_the_seed_and_leave_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    first, second, other = (build_potential(WATER, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.embedding, second.embedding)
    assert not torch.equal(first.embedding, other.embedding)


def test_terms_and_atomic_energies_sum_to_the_energy() -> None:
    config = {**WATER.to_dict(), "reference_energies": (-10.0, -400.0)}
    potential = build_potential(PotentialConfig.from_dict(config))
    result = run(potential, molecule("H2O"))
    assert set(result.terms) == {"reference", "short_range", "electrostatic"}
    assert float(result.terms["reference"]) == -420.0
    assert float(sum(result.terms.values())) == pytest.approx(float(result.energy), rel=1e-12)
    assert float(result.atomic_energies.sum()) == pytest.approx(float(result.energy), rel=1e-12)


def test_reference_energies_keep_double_precision_in_a_float32_network() -> None:
    exact = -13_587.123456789012
    config = {**WATER.to_dict(), "reference_energies": (exact, exact)}
    potential = build_potential(PotentialConfig.from_dict(config)).float()
    assert float(run(potential, Atoms("H")).terms["reference"]) == exact
    assert float(run(potential.double(), Atoms("H")).terms["reference"]) == exact


def test_float32_agrees_with_float64_and_results_are_float64() -> None:
    potential = build_potential(WATER)
    single = run(potential, molecule("H2O"))
    double = run(potential.double(), molecule("H2O"))
    for name in ("energy", "forces", "charges"):
        assert getattr(single, name).dtype == torch.float64
        torch.testing.assert_close(
            getattr(single, name), getattr(double, name), rtol=1e-4, atol=1e-4
        )


def test_far_from_the_origin_float32_forces_are_the_same() -> None:
    potential, atoms = build_potential(WATER), molecule("H2O")
    near = run(potential, atoms).forces
    atoms.positions += 500.0
    torch.testing.assert_close(run(potential, atoms).forces, near, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", ["none", "qeq"])
def test_no_atoms_and_one_atom(head: str) -> None:
    config = PotentialConfig.from_dict({**WATER.to_dict(), "head": head})
    potential = build_potential(config).double()
    empty = run(potential, Atoms(cell=[5, 5, 5], pbc=True), stress=True)
    assert float(empty.energy) == 0
    assert empty.forces.shape == (0, 3)
    assert empty.stress is not None
    assert empty.stress.abs().max() == 0
    for pbc in (False, True):
        one = run(potential, Atoms("O", cell=[9, 9, 9], pbc=pbc))
        assert torch.isfinite(one.energy).all()
        assert one.forces.abs().max() < 1e-10


def test_pair_scan_is_continuous_through_the_cutoff() -> None:
    potential = build_potential(flat_config(elements=("H", "O"), channels=8, cutoff=3.0)).double()
    distances = 3.0 + np.linspace(-2e-3, 2e-3, 81)
    scan = [run(potential, Atoms("OH", positions=[[0, 0, 0], [r, 0, 0]])) for r in distances]
    energy = np.array([float(s.energy) for s in scan])
    force = np.array([float(s.forces[1, 0]) for s in scan])
    step = distances[1] - distances[0]
    assert np.abs(np.diff(force)).max() < 50 * step
    assert np.abs(np.diff(energy) + 0.5 * step * (force[1:] + force[:-1])).max() < 1e-8


def test_parameters_get_gradients_from_forces_and_stress() -> None:
    potential = build_potential(WATER).double()
    atoms = bulk("O", "fcc", a=3.6)
    graph = potential.prepare(from_ase(atoms.repeat((1, 1, 2)), potential.cutoff))
    graph = graph._replace(positions=graph.positions + 0.1 * torch.randn(2, 3).double())
    result = predict(potential, graph, stress=True, create_graph=True)
    assert result.stress is not None
    (result.forces.pow(2).sum() + result.stress.pow(2).sum()).backward()
    assert [name for name, p in potential.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("pbc", [False, [True, True, False], True], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {"head": "none"},
        {},
        {"hardness": "environment"},
        {"hardness": "environment", "electrostatic_energy": "coulomb"},
        {"smearing": "trained", "charge_feedback": "embedding"},
        {"head": "latent", "smearing": "trained", "atomic_dipoles": True},
        {"gate": False, "readout": "last"},
    ],
    ids=str,
)
def test_training_gradients_agree_with_finite_differences(settings: dict, pbc: object) -> None:
    torch.manual_seed(4)
    potential = build_potential(flat_config(**FLAT, force_accuracy=1e-8, **settings)).double()
    atoms = molecule("H2O", cell=[4.5, 5.0, 5.5], pbc=pbc)
    atoms.rattle(0.1, seed=3)
    graph = potential.prepare(from_ase(atoms, potential.cutoff))

    def loss() -> torch.Tensor:
        result = predict(potential, graph, stress=pbc is True, create_graph=True)
        total = result.forces.pow(2).sum() + 0.1 * result.energy.sum() ** 2
        if result.charges is not None:
            total = total + 10 * (result.charges**2).sum()
        if result.stress is not None:
            total = total + 100 * result.stress.pow(2).sum()
        return total

    parameters = list(potential.parameters())
    directions = [torch.randn_like(p) for p in parameters]
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    exact = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True)
                if g is not None)  # fmt: skip
    values, step = [], 1e-6
    for sign in (1, -2, 1):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p += sign * step * d
        values.append(float(loss().detach()))
    numeric = (values[0] - values[1]) / (2 * step)
    assert exact == pytest.approx(numeric, rel=1e-5)
