"""Candidates know where they come from, and what a model does before it breaks down is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.checkpoint import ModelCard, save_model
from phicalc.improvement import config_of, exploration
from phicalc.improvement.exploration import explore, read_atoms
from phicalc.improvement.steering import Wish
from phicalc.potential import build_potential
from phicalc.structures import water_box
from phicalc.structures.checks import check_structure

from ..tiny import flat_config

ETHANE = molecule("C2H6")


def settings(**explorers: dict[str, Any]) -> Any:
    return config_of({"structures": ["a.xyz"], "explore": explorers})


def found(config: Any, structures: list[Atoms], folder: Path, model=None, wishes=()) -> list[Atoms]:
    folder.mkdir(exist_ok=True)
    return read_atoms(explore(config, structures, model, wishes, folder, 3))


def model_of(folder: Path, elements: tuple[str, ...], scale: float = 0.0) -> Path:
    """Save a potential that is flat, or whose energies are as large as the factor makes them."""
    config = flat_config(
        elements=elements, cutoff=3.0, layers=1, channels=4, l_max=1, correlation=1, head="none"
    )
    potential = build_potential(config, seed=1)
    for weight in (*potential.linear_readout.parameters(), *potential.readout.parameters()):
        weight.data.mul_(scale)
    save_model(folder, potential, ModelCard(name="tiny"))
    return folder


def test_new_models_are_explored_for_without_forces(tmp_path: Path) -> None:
    config = settings(
        md={}, modes={}, torsions={"points": 4}, pairs={"points": 2}, dissociation={"points": 2},
        compressed={"points": 2}, rattle={"copies": 2},
    )  # fmt: skip
    frames = found(config, [ETHANE], tmp_path)
    samplers = {atoms.info["found_by"] for atoms in frames}
    assert samplers == {"torsions", "pairs", "dissociation", "compressed", "rattle"}
    assert {atoms.info["parent"] for atoms in frames} == {"0 C2H6"}
    assert {atoms.info["round"] for atoms in frames} == {3}
    torsion = next(atoms for atoms in frames if atoms.info["found_by"] == "torsions")
    assert "turned" in torsion.info
    for atoms in frames:
        check_structure(atoms)
        assert not {"initial_magmoms", "momenta"} & set(atoms.arrays)


def test_no_candidate_has_atoms_on_top_of_each_other(tmp_path: Path) -> None:
    config = settings(pairs={"smallest": 0.1, "largest": 1.0, "points": 10})
    frames = found(config, [molecule("N2")], tmp_path)
    lengths = [atoms.get_distance(0, 1) / (2 * 0.71) for atoms in frames]
    assert min(lengths) >= 0.45 - 1e-6
    assert 0 < len(frames) < 10


def test_failed_checks_ask_for_frames(tmp_path: Path) -> None:
    wishes = [
        Wish("walls", ("pairs",), ()),
        Wish("torsions", ("torsions",), (molecule("H2O2"),)),
    ]
    config = settings(torsions={"points": 2}, pairs={"points": 1}, rattle={"copies": 1})
    frames = found(config, [ETHANE], tmp_path, wishes=wishes)
    origins = {(a.info["found_by"], a.info["parent"], a.info.get("failed_check")) for a in frames}
    assert origins == {
        ("torsions", "0 C2H6", None),
        ("torsions", "torsions H2O2", "torsions"),
        ("pairs", "0 C2H6", "walls"),
        ("rattle", "0 C2H6", None),
    }


def test_dynamics_at_several_temperatures_and_densities(tmp_path: Path) -> None:
    model = model_of(tmp_path / "model", ("H", "O"))
    box = water_box(4, density=1.0)
    config = config_of(
        {
            "structures": ["a.xyz"],
            "densities": [1.0, 0.9],
            "explore": {"md": {"temperatures": [100.0, 200.0], "frames": 1, "interval": 1}},
        }
    )
    frames = found(config, [box], tmp_path / "x", model)
    volumes = {round(atoms.cell.volume / box.cell.volume, 3) for atoms in frames}
    assert volumes == {1.0, 1.111}
    assert sorted(atoms.info["temperature"] for atoms in frames) == [100, 100, 200, 200]
    thin = next(a for a in frames if a.info.get("density_factor") == pytest.approx(0.9))
    assert thin.get_distance(0, 1, mic=True) == pytest.approx(
        box.get_distance(0, 1, mic=True), abs=0.1
    )


def test_frames_before_a_breakdown_are_kept(tmp_path: Path, monkeypatch) -> None:
    model = model_of(tmp_path / "model", ("Cu",), scale=1.0)
    config = settings(md={"temperatures": [3000.0], "frames": 6, "interval": 4})
    whole = found(config, [bulk("Cu", cubic=True)], tmp_path / "a", model)
    labelled = ase.io.read(tmp_path / "a" / "md.extxyz", ":")
    forces = [float(np.linalg.norm(atoms.get_forces(), axis=1).max()) for atoms in labelled]
    assert forces[0] < max(forces)  # it grows, from the crystal's none
    monkeypatch.setattr(exploration, "LARGEST_FORCE", 0.5 * (forces[0] + max(forces)))
    frames = found(config, [bulk("Cu", cubic=True)], tmp_path / "b", model)
    assert 0 < len(frames) < len(whole) == 6
    for one, other in zip(frames, whole, strict=False):
        assert one.positions == pytest.approx(other.positions)
    (lost,) = json.loads((tmp_path / "b" / "failures.json").read_text())
    assert (lost["sampler"], lost["frame"]) == ("md", len(frames))


def test_a_model_that_explodes_at_once_leaves_no_candidates(tmp_path: Path) -> None:
    wild = model_of(tmp_path / "model", ("Cu",), scale=1e9)
    frames = found(settings(md={"frames": 2}), [bulk("Cu", cubic=True)], tmp_path / "x", wild)
    assert frames == []
    assert "every frame failed" in (tmp_path / "x" / "failures.json").read_text()
