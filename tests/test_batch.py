"""Many structures at once give what each gives alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed, InputError

import phicalc.inference.batch
from phicalc import PhiCalculator
from phicalc.derivatives import RESPONSES, predict
from phicalc.graph import collate
from phicalc.inference.evaluate import prepare
from phicalc.potential import Potential, build_potential
from phicalc.structures import evaluate_structures

from .tiny import flat_config


def make_potential(**settings: object) -> Potential:
    defaults = {"elements": ("H", "O", "Na", "Cl"), "cutoff": 3.5, "channels": 4, "l_max": 1}
    return build_potential(flat_config(**{**defaults, **settings}), seed=2)


def calculator(**settings: object) -> PhiCalculator:
    return PhiCalculator(make_potential(**settings), device="cpu", dtype="float64")


def salt(n: int, seed: int, pbc: object = True) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6).repeat((1, 1, n))
    atoms.rattle(0.1, seed=seed)
    atoms.pbc = pbc
    return atoms


def structures() -> list[Atoms]:
    charged = molecule("OH")
    charged.info["charge"] = -1
    pieces = salt(2, 5, pbc=False)
    pieces.set_array("fragments", np.array([0, 0, 1, 1]))
    pieces.info["fragment_charges"] = [0.5, -0.5]
    field = molecule("H2O")
    field.info["external_field"] = [0.0, 0.1, 0.0]
    slab = salt(2, 6, pbc=(True, True, False))
    others = [salt(n, n) for n in (1, 3, 2)]
    return [molecule("H2O"), others[0], charged, slab, pieces, others[1], field, others[2],
            Atoms("Na"), Atoms(), molecule("H2")]  # fmt: skip


def compare(found: dict, atoms: Atoms, calc: PhiCalculator, stress: bool) -> None:
    calc.reset()
    wanted = ["energy", "forces", *(["stress"] if stress and atoms.pbc.all() else [])]
    calc.calculate(atoms, wanted)
    assert set(found) == set(calc.results)
    for name, value in calc.results.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("head", "stress", "max_atoms"),
    [
        ("qeq", True, 1), ("qeq", False, 7), ("qeq", True, 7), ("qeq", True, 1000),
        ("latent", True, 7), ("latent", False, 1000), ("none", True, 7), ("none", False, 1000),
    ],
)  # fmt: skip
def test_batches_are_loops(head: str, stress: bool, max_atoms: int) -> None:
    calc, frames = calculator(head=head), structures()
    if head != "qeq":
        frames = [atoms for atoms in frames if "fragments" not in atoms.arrays]
    if head == "none":
        frames = [atoms for atoms in frames if not {"external_field", "charge"} & set(atoms.info)]
    results = calc.batch(frames, stress=stress, max_atoms=max_atoms)
    for found, atoms in zip(results, frames, strict=True):
        compare(found, atoms, calc, stress)


def test_batches_are_divided_by_atoms_and_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phicalc.inference.batch, "DENSE_ATOMS", 6)
    frames = [
        salt(n, n, pbc) for n, pbc in ((2, True), (1, False), (2, True), (4, True), (1, True))
    ]
    groups = list(phicalc.inference.batch._groups(frames, True, 6))
    assert [[len(frames[i]) for i in group] for group in groups] == [[8], [2], [2, 4], [4]]
    assert sorted(i for group in groups for i in group) == list(range(5))


def test_charges_larger_than_planned_are_summed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calc, frames = calculator(), [salt(n, n) for n in (1, 2)]
    seen: list[int] = []
    evaluate = phicalc.inference.batch.evaluate

    def counted(potential, atoms, *args, **kwargs):
        seen.append(len(atoms))
        return evaluate(potential, atoms, *args, **kwargs)

    monkeypatch.setattr(phicalc.inference.batch, "evaluate", counted)
    monkeypatch.setattr(
        "phicalc.electrostatics.sums.plan.CoulombPlanner.underrated", lambda _, q: len(q) == 4
    )
    calc.batch(frames)
    assert seen == [4]


def test_files_are_evaluated_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    calc, frames = calculator(), structures()[:4]
    monkeypatch.setattr(PhiCalculator, "calculate", None)
    results = evaluate_structures(frames, calc)
    assert [atoms.get_chemical_formula() for atoms in results] == ["H2O", "ClNa", "HO", "Cl2Na2"]
    assert results[1].get_stress().shape == (6,)
    assert results[2].get_charges().sum() == pytest.approx(-1)
    assert all(frame.calc is None for frame in frames)


@pytest.mark.parametrize(
    ("head", "responses", "without"),
    [
        ("solve", (), {"formal", *RESPONSES}),
        ({"name": "acks2", "formal_charges": "element"}, RESPONSES, {"residual"}),
    ],
)
def test_predictions_are_taken_apart_by_name(head: object, responses, without: set[str]) -> None:
    """A field that is added to predictions must not shift the others."""
    potential = make_potential(head=head, atomic_dipoles=True).double().eval()
    graphs = [prepare(potential, atoms).graph for atoms in (salt(1, 1), salt(2, 2))]
    whole = predict(potential, collate(graphs), stress=True, responses=responses)
    parts = list(phicalc.inference.batch._split(whole, graphs))
    for name in whole._fields:
        if name not in {"terms", "missing", *without}:
            found, expected = [getattr(part, name) for part in parts], getattr(whole, name)
            if name == "formal":  # a record
                found = [torch.column_stack(each) for each in found]
                expected = torch.column_stack(expected)
            assert torch.equal(torch.cat(found), expected), name
    assert all(getattr(part, name) is None for part in parts for name in without)
    assert [part.charges.shape[0] for part in parts] == [2, 4]
    assert all(part.energy.shape == (1,) for part in parts)


def test_nothing_and_nonsense() -> None:
    calc = calculator()
    assert calc.batch([]) == []
    with pytest.raises(ValueError, match="max_atoms must be positive"):
        calc.batch([molecule("H2O")], max_atoms=0)
    close = Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.01]])
    with pytest.raises(InputError, match="0.01 Å apart"):
        calc.batch([molecule("H2O"), close])


def test_results_that_are_not_finite_are_refused() -> None:
    potential = make_potential()
    potential.embedding.data[0] = float("nan")  # hydrogen
    calc = PhiCalculator(potential, device="cpu")
    with pytest.raises(CalculationFailed, match="of H2O not finite"):
        calc.batch([salt(1, 1, False), molecule("H2O")])
