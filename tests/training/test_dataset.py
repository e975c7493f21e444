from __future__ import annotations

import dataclasses

import pytest
import torch

from phicalc.data.config import DataConfig, KeysConfig
from phicalc.data.files import read_frames
from phicalc.training.dataset import (
    batch_plan,
    charge_range,
    check_elements,
    check_labels_make_sense,
    join,
    load_splits,
    make_samples,
    split_indices,
)
from phicalc.training.objective import LossConfig, TermConfig


@pytest.fixture
def frames(carbon_chain):
    return read_frames(carbon_chain, KeysConfig())


def config(**changes) -> DataConfig:
    return DataConfig(**{"train": ("a",), **changes})


def test_random_split_is_repeatable_and_disjoint(frames):
    valid, test = split_indices(config(valid_count=5, test_count=7), frames)
    assert (len(valid), len(test)) == (5, 7)
    assert not set(valid) & set(test)
    assert (valid, test) == split_indices(config(valid_count=5, test_count=7), frames)
    assert valid != split_indices(config(valid_count=5, test_count=7, split_seed=1), frames)[0]
    # asking for fewer validation frames leaves the test frames as they are
    assert split_indices(config(valid_count=1, test_count=7), frames)[1] == test


def test_default_validation_set_is_a_tenth(frames):
    assert len(split_indices(config(), frames)[0]) == 3


def test_last_frames_are_kept_in_order(frames):
    valid, test = split_indices(config(split="last", valid_count=2, test_count=3), frames)
    assert (valid, test) == ([25, 26], [27, 28, 29])


def test_split_by_key(frames):
    valid, test = split_indices(config(split="key"), frames)
    assert [frames[i].atoms.info["split"] for i in valid] == ["val"] * 6
    assert test == []
    with pytest.raises(ValueError, match=r"no frame has info\['fold'\]"):
        split_indices(config(split="key", split_key="fold"), frames)


def test_frames_for_validation_are_drawn_beside_a_test_set_by_key(frames):
    given = config(split="key", valid_values=[], test_values=["val"], valid_count=4)
    valid, test = split_indices(given, frames)
    assert test == split_indices(config(split="key"), frames)[0]
    assert len(valid) == 4
    assert not set(valid) & set(test)
    assert valid != split_indices(dataclasses.replace(given, split_seed=1), frames)[0]
    rest = len(frames) - len(test)
    part = dataclasses.replace(given, valid_count=None, valid_fraction=0.5)
    assert len(split_indices(part, frames)[0]) == round(rest / 2)


def test_a_key_that_keeps_no_frame_for_validation_is_said(frames):
    given = config(split="key", valid_values=["valdi"], test_values=["val"])
    with pytest.warns(UserWarning, match=r"data.valid_values \['valdi'\], .* nothing is kept"):
        assert split_indices(given, frames)[0] == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"split": "key", "valid_values": ["a", "b"], "test_values": ["b"]}, "b is among"),
        ({"split": "files", "valid": ["x.xyz"], "test": ["x.xyz"]}, "x.xyz is named twice"),
        ({"split": "files", "train": ["x.xyz"], "test": ["x.xyz"]}, "x.xyz is named twice"),
    ],
)
def test_frames_in_two_parts_are_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        config(**changes)


def test_splits_record_what_was_used(carbon_chain):
    data = config(train=(str(carbon_chain),), valid_count=4, test_count=2, max_frames=20)
    splits = load_splits(data, LossConfig())
    assert [len(part) for part in splits[:3]] == [14, 4, 2]
    assert splits.record["counts"] == {"train": 14, "valid": 4, "test": 2}
    (file,) = splits.record["files"]["train"]
    assert file["name"] == carbon_chain.name
    assert len(file["sha256"]) == 64
    origins = {frame.origin for part in splits[:3] for frame in part}
    assert origins == {f"{carbon_chain.name}, frame {i}" for i in range(20)}


def test_part_of_the_training_frames(carbon_chain):
    data = config(train=(str(carbon_chain),), valid_count=6, test_count=4)
    whole, half = (
        load_splits(dataclasses.replace(data, train_fraction=part), LossConfig())
        for part in (1.0, 0.5)
    )
    names = [[frame.origin for frame in splits.train] for splits in (whole, half)]
    assert (len(names[0]), len(names[1])) == (20, 10)
    assert set(names[1]) < set(names[0])
    assert names[1] != names[0][:10]
    for role in ("valid", "test"):
        origins = ([frame.origin for frame in getattr(each, role)] for each in (whole, half))
        assert next(origins) == next(origins)
    assert half.record["counts"] == {"train": 10, "valid": 6, "test": 4}
    with pytest.raises(ValueError, match="train_fraction"):
        config(train_fraction=0.0)


def test_files_of_their_own(carbon_chain, tmp_path):
    lines = carbon_chain.read_text().splitlines()
    (tmp_path / "v.xyz").write_text("\n".join(lines[-15:]) + "\n")  # the last C10H3
    (tmp_path / "t.xyz").write_text("\n".join(lines[:-15]) + "\n")
    data = config(train=("t.xyz",), valid=("v.xyz",), split="files")
    splits = load_splits(data, LossConfig(), tmp_path)
    assert [len(part) for part in splits[:3]] == [29, 1, 0]


def test_split_that_leaves_nothing_is_refused(carbon_chain):
    data = config(train=(str(carbon_chain),), valid_count=20, test_count=10)
    with pytest.raises(ValueError, match=r"no training frame: 30 frames, of which 20"):
        load_splits(data, LossConfig())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 30, 50])
def test_batches_hold_every_structure_once_and_never_one_alone(size):
    plan = batch_plan(29, size, (3, 1))
    assert sorted(i for batch in plan for i in batch) == list(range(29))
    assert size == 1 or min(map(len, plan)) > 1


def test_order_depends_on_seed_and_epoch_only():
    assert batch_plan(20, 4, (1, 2)) == batch_plan(20, 4, (1, 2))
    assert batch_plan(20, 4, (1, 2)) != batch_plan(20, 4, (1, 3))
    assert batch_plan(20, 4, (1, 2)) != batch_plan(20, 4, (2, 2))
    assert batch_plan(5, 2) == [[0, 1], [2, 3, 4]]
    assert batch_plan(0, 2) == []
    assert batch_plan(1, 2) == [[0]]


def test_joined_samples_keep_their_labels(frames):
    samples = make_samples([frames[0], frames[-1]], 3.0)
    batch = join(samples)
    assert batch.graph.n_structures == 2
    assert batch.graph.total_charge.tolist() == [0, 1]
    assert torch.equal(batch.labels.energy, torch.cat([s.labels.energy for s in samples]))
    assert len(batch.labels.forces) == batch.graph.n_atoms == 12 + 13
    assert charge_range(frames) == (0, 1)


def test_elements_of_data_and_model_must_agree(frames):
    check_elements(frames, ["C", "H"])
    with pytest.raises(ValueError, match=r"the data also hold C \(.*frame 0\).*\['C', 'H'\]"):
        check_elements(frames, ["H"])
    with pytest.raises(ValueError, match="no training frame holds O"):
        check_elements(frames, ["H", "C", "O"])


@pytest.mark.parametrize(
    ("label", "pbc", "message"),
    [
        ("stress", False, "stress is defined only for cells periodic in three dimensions"),
        ("stress", [True, True, False], "stress is defined only"),
        ("dipole", True, "no unique dipole"),
    ],
)
def test_labels_without_meaning_are_refused(frames, label, pbc, message):
    loss = dataclasses.replace(LossConfig(), **{label: TermConfig(weight=1.0)})
    frame = frames[0]._replace(atoms=frames[0].atoms.copy())
    frame.atoms.pbc = pbc
    check_labels_make_sense([frame], LossConfig())
    with pytest.raises(ValueError, match=message):
        check_labels_make_sense([frame], loss)


def test_labels_that_are_not_required_may_be_missing_but_not_undefined(frames):
    bare = [f._replace(labels=f.labels._replace(charges=f.labels.charges * torch.nan))
            for f in frames[:3]]  # fmt: skip
    loose = LossConfig(charges=TermConfig(1.0, required=False))
    check_labels_make_sense([*bare, frames[4]], loose)
    with pytest.raises(ValueError, match="loss.charges has a weight, but no frame has this label"):
        check_labels_make_sense(bare, loose)
    later = LossConfig(charges=TermConfig(0.0, final_weight=1.0, required=False))
    with pytest.raises(ValueError, match="no frame has this label"):
        check_labels_make_sense(bare, later)
    loose = LossConfig(dipole=TermConfig(1.0, required=False))
    periodic = frames[0].atoms.copy()
    periodic.pbc = True
    with pytest.raises(ValueError, match="a periodic cell has no unique dipole"):
        check_labels_make_sense([frames[0]._replace(atoms=periodic)], loose)
    labels = frames[0].labels._replace(dipole=frames[0].labels.dipole * torch.nan)
    check_labels_make_sense([frames[1], frames[0]._replace(atoms=periodic, labels=labels)], loose)


def test_models_that_are_trained_already_may_know_more(frames):
    check_elements(frames, ["H", "C", "O"], all_present=False)
    with pytest.raises(ValueError, match="the data also hold C"):
        check_elements(frames, ["H", "O"], all_present=False)
