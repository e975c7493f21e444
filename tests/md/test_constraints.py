"""Constraints in runs: kept, restarted exactly, or refused before the first step by name."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import (
    ExternalForce,
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCartesianParametricRelations,
    FixCom,
    FixedLine,
    FixedMode,
    FixedPlane,
    FixInternals,
    FixLinearTriatomic,
    FixScaled,
    FixSubsetCom,
    FixSymmetry,
    Hookean,
    MirrorForce,
    MirrorTorque,
)

from phicalc.md import MDConfig, run_md

from .systems import ENSEMBLES, Springs, cluster


class Killed(BaseException):
    """What no run can catch."""


class Dying(Springs):
    """Springs that kill the run at the 23rd evaluation."""

    evaluations = 0

    def calculate(self, *args, **kwargs):
        self.evaluations += 1
        if self.evaluations == 23:
            raise Killed
        super().calculate(*args, **kwargs)


Dying.__name__ = "Springs"

#: Constraints, and what they keep of a structure.
KEPT = {
    "FixAtoms": (lambda _: FixAtoms([0]), lambda a: a.positions[0]),
    "FixCartesian": (lambda _: FixCartesian([1], (1, 0, 0)), lambda a: a.positions[1, 0]),
    "FixCartesian of one": (lambda _: FixCartesian(1, (1, 0, 1)), lambda a: a.positions[1, ::2]),
    "FixScaled": (lambda _: FixScaled([1], (1, 0, 0)), lambda a: a.positions[1, 0]),
    "FixedLine": (lambda _: FixedLine(1, (1, 0, 0)), lambda a: a.positions[1, 1:]),
    "FixedPlane": (lambda _: FixedPlane(1, (1, 0, 0)), lambda a: a.positions[1, 0]),
    "FixBondLengths": (
        lambda _: FixBondLengths([(0, 1), (1, 2)], tolerance=1e-10),
        lambda a: [a.get_distance(0, 1), a.get_distance(1, 2)],
    ),
    "FixInternals": (
        lambda a: FixInternals(bonds=[[a.get_distance(0, 1), [0, 1]]], epsilon=1e-9),
        lambda a: a.get_distance(0, 1),
    ),
    "FixCom": (lambda _: FixCom(), lambda a: a.get_center_of_mass()),
    "FixSubsetCom": (
        lambda _: FixSubsetCom([0, 1]), lambda a: a[[0, 1]].get_center_of_mass()
    ),
    "FixedMode": (lambda _: FixedMode(np.ones((6, 3))), lambda a: a.positions.sum()),
    "Hookean": (lambda _: Hookean(0, 1, k=0.5, rt=3.0), lambda _: 0.0),
    "ExternalForce": (lambda _: ExternalForce(0, 1, 0.1), lambda _: 0.0),
}  # fmt: skip

REFUSED = {
    "FixSymmetry": FixSymmetry,
    "MirrorForce": lambda _: MirrorForce(0, 1),
    "MirrorTorque": lambda _: MirrorTorque(0, 1, 2, 3),
    "FixCartesianParametricRelations": lambda _: FixCartesianParametricRelations.from_expressions(
        indices=[0], params=["x"], expressions=["x", "2.0", "x"]
    ),
}


def run(make, calculator, folder, config: MDConfig, *, restart: bool = False) -> Atoms:
    atoms = cluster(calculator)
    atoms.set_constraint(make(atoms))
    run_md(atoms, config, folder, restart=restart)
    return atoms


def settings(ensemble: str) -> MDConfig:
    return MDConfig(
        timestep=2.0, steps=30, checkpoint_interval=10, max_force=1e3, **ENSEMBLES[ensemble]
    )


# Extended XYZ has columns for FixAtoms and FixCartesian only, and the run says so.
@pytest.mark.filterwarnings("ignore:.*constraints .* are not written")
@pytest.mark.parametrize("ensemble", ["nve", "bussi"])
@pytest.mark.parametrize("name", KEPT)
def test_constraints_are_kept_and_go_on_exactly(name, ensemble, tmp_path):
    make, kept = KEPT[name]
    whole = run(make, Springs(), tmp_path / "whole", settings(ensemble))
    np.testing.assert_allclose(kept(whole), kept(cluster()), atol=1e-7)
    with pytest.raises(Killed):
        run(make, Dying(), tmp_path / "parts", settings(ensemble))
    parts = run(make, Springs(), tmp_path / "parts", settings(ensemble), restart=True)
    assert np.array_equal(parts.positions, whole.positions)
    assert np.array_equal(parts.get_momenta(), whole.get_momenta())


@pytest.mark.filterwarnings("ignore:.*constraints .* are not written")
@pytest.mark.parametrize("name", ["FixAtoms", "FixCartesian", "FixCom"])
@pytest.mark.parametrize("ensemble", ["langevin", "berendsen"])
def test_constraints_of_other_thermostats_go_on_exactly(name, ensemble, tmp_path):
    test_constraints_are_kept_and_go_on_exactly(name, ensemble, tmp_path)


@pytest.mark.filterwarnings("ignore:.*constraints .* are not written")
def test_linear_triples_go_on_exactly(tmp_path):
    def run_triple(calculator, folder, restart=False) -> Atoms:
        atoms = cluster(calculator)
        atoms.positions[[0, 1, 3]] = [[7.2, 5.0, 5.0], [5.0, 5.0, 5.0], [2.8, 5.0, 5.0]]
        atoms.set_constraint(FixLinearTriatomic([(0, 1, 3)]))
        run_md(atoms, settings("nve"), folder, restart=restart)
        return atoms

    whole = run_triple(Springs(), tmp_path / "whole")
    with pytest.raises(Killed):
        run_triple(Dying(), tmp_path / "parts")
    parts = run_triple(Springs(), tmp_path / "parts", restart=True)
    assert np.array_equal(parts.positions, whole.positions)
    assert np.array_equal(parts.get_momenta(), whole.get_momenta())


@pytest.mark.parametrize("name", REFUSED)
def test_constraints_for_relaxations_only_are_refused_by_name(name, tmp_path):
    with pytest.raises(ValueError, match=f"cannot use the constraint {name}: .* Remove it"):
        run(REFUSED[name], Springs(), tmp_path, settings("nve"))
    assert not [path for path in tmp_path.iterdir() if path.name != ".lock"]


def test_another_constraint_is_another_run(tmp_path):
    with pytest.raises(Killed):
        run(KEPT["FixCartesian"][0], Dying(), tmp_path, settings("nve"))
    with pytest.raises(ValueError, match="structure.constraints"):
        run(lambda _: FixCartesian([1], (0, 1, 0)), Springs(), tmp_path, settings("nve"),
            restart=True)  # fmt: skip


def test_numbers_of_numpy_are_settings(tmp_path):
    config = MDConfig(
        temperature=np.float32(200.0), steps=np.int64(4), timestep=np.float64(2.0),
        seed=np.int32(3), log_pressure=np.bool_(True),
    )  # fmt: skip
    run_md(cluster(), config, tmp_path)
    result = run_md(cluster(), MDConfig(**{**config.to_dict(), "steps": 8}), tmp_path, restart=True)
    assert result.first_step == 4
