"""Frames are chosen for what they add."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from phicalc.checkpoint import ModelCard, save_model
from phicalc.improvement import config_of
from phicalc.improvement.exploration import read_atoms, write_atoms
from phicalc.improvement.novelty import Described, describe, fingerprints
from phicalc.improvement.selection import _Known, _shares, select
from phicalc.potential import build_potential
from phicalc.uncertainty import LastLayerUncertainty

from ..tiny import flat_config
from .references import chain


def described(*rows: list[float], strange: str = "") -> Described:
    white = np.array(rows)
    return Described(white, np.full(len(white), 2.0), frozenset(filter(None, [strange])))


def test_a_chosen_frame_makes_frames_like_it_known() -> None:
    known, one, other = _Known(), described([3.0, 0.0]), described([0.0, 2.5], [0.1, 0.0])
    assert one.novelty == 1.5
    assert known.ranks([one, other]) == [1.5, 1.25]
    known.add(one)  # leaves 1 / (1 + s²) of the variance
    assert known.ranks([one, other]) == pytest.approx([1.5 / np.sqrt(1 + 3.0**2), 1.25])
    strange = described([0.0, 0.0], strange="N(N)")
    assert known.ranks([strange]) == [1.0]
    known.add(strange)
    assert known.ranks([strange]) == [0.0]


def test_shares_follow_failed_checks_and_numbers_of_candidates() -> None:
    plain = [Atoms("N") for _ in range(50)]
    md, pairs, asked = ("md", ""), ("pairs", ""), ("pairs", "walls")
    assert _shares({md: plain, pairs: plain}, 10) == {md: 8, pairs: 2}
    assert _shares({md: plain, asked: plain}, 14) == {md: 8, asked: 6}
    assert _shares({md: plain[:3], pairs: plain}, 10) == {md: 3, pairs: 7}
    assert _shares({md: plain[:3]}, 10) == {md: 3}


def candidates(folder: Path, groups: dict[str, list[Atoms]]) -> Path:
    path = folder / "candidates.extxyz"
    for name, members in groups.items():
        for atoms in members:
            atoms.info["found_by"] = name
    write_atoms(path, [atoms for members in groups.values() for atoms in members])
    return path


def stretched(length: float) -> Atoms:
    atoms = chain()
    atoms.positions[1] *= length
    return atoms


def test_without_a_model_the_farthest_frames_are_chosen(tmp_path: Path) -> None:
    near = [stretched(1 + 0.001 * i) for i in range(20)]
    path = candidates(tmp_path, {"rattle": [*near, stretched(1.8), stretched(0.6)]})
    config = config_of({"structures": ["n.xyz"]})
    chosen = read_atoms(select(config, path, None, (), 3, tmp_path, 0))
    lengths = sorted(np.linalg.norm(atoms.positions[1]) / 1.22 for atoms in chosen)
    assert lengths[0] == pytest.approx(0.6)
    assert lengths[-1] == pytest.approx(1.8)
    assert {atoms.info["chosen_by"] for atoms in chosen} == {"distance"}
    assert Counter(atoms.info["split"] for atoms in chosen) == {"train": 2, "valid": 1}


def test_what_was_chosen_before_is_not_chosen_again(tmp_path: Path) -> None:
    path = candidates(tmp_path, {"md": [stretched(1.0), stretched(1.0), stretched(1.5)]})
    config = config_of({"structures": ["n.xyz"], "select": "random"})
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    write_atoms(first / "chosen.extxyz", [stretched(1.5)])
    chosen = read_atoms(select(config, path, None, [first / "chosen.extxyz"], 9, second, 1))
    assert len(chosen) == 1
    assert chosen[0].info["chosen_by"] == "random"
    assert chosen[0].positions == pytest.approx(stretched(1.0).positions)


def test_random_choices_differ_by_seed_alone(tmp_path: Path) -> None:
    path = candidates(tmp_path, {"md": [stretched(1 + 0.01 * i) for i in range(30)]})
    found = []
    for number, seed in enumerate((1, 1, 2)):
        config = config_of({"structures": ["n.xyz"], "select": "random", "seed": seed})
        folder = tmp_path / str(number)
        folder.mkdir()
        found.append(select(config, path, None, (), 5, folder, 0).read_bytes())
    assert found[0] == found[1] != found[2]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Save a model whose features count as uncertain as they come."""
    config = flat_config(
        elements=("N",), cutoff=4.0, layers=1, channels=4, l_max=1, correlation=1, head="none"
    )
    potential = build_potential(config, seed=1)
    known = LastLayerUncertainty(potential.n_last, 1)
    known.whitening.copy_(torch.eye(potential.n_last))
    potential.uncertainty = known
    card = ModelCard(name="tiny", data={"domain": {"environments": ["N(NN)", "N(N)"]}})
    save_model(tmp_path / "model", potential, card)
    return tmp_path / "model"


def test_models_choose_new_bonds_first_then_uncertain_atoms(model: Path, tmp_path: Path) -> None:
    apart = stretched(3.0)
    frames = [*(stretched(1 + 0.02 * i) for i in range(5)), apart]
    path = candidates(tmp_path, {"md": frames})
    config = config_of({"structures": ["n.xyz"]})
    first, *others = read_atoms(select(config, path, model, (), 3, tmp_path, 0))
    assert first.positions == pytest.approx(apart.positions)
    assert (first.info["chosen_by"], first.info["environment"]) == ("domain", "N()")
    assert {atoms.info["chosen_by"] for atoms in others} == {"uncertainty"}
    novelties = [each.novelty for each in describe(frames, model)]
    assert all(round(n, 4) in np.round(novelties, 4) for n in (a.info["novelty"] for a in others))


def test_fingerprints_know_no_order_and_no_direction() -> None:
    atoms, other = chain(), chain()[[2, 0, 1]]
    other.rotate(50, (1, 2, 3))
    prints = fingerprints([atoms, other, stretched(1.2)])
    assert prints[0] == pytest.approx(prints[1])
    assert np.abs(prints[0] - prints[2]).max() > 0.1
