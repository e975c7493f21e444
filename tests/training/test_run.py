from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms

from phicalc.checkpoint import load_model
from phicalc.data.files import read_frames
from phicalc.derivatives import predict
from phicalc.potential import build_potential
from phicalc.schema import dump_yaml
from phicalc.state import read_state
from phicalc.training import TrainingDiverged, train, train_from_yaml
from phicalc.training import engine as engine_module
from phicalc.training import run as run_module
from phicalc.training.config import TrainingConfig
from phicalc.training.dataset import join, make_samples, prepare_samples
from phicalc.training.engine import Engine
from phicalc.training.optimization import MovingAverage
from phicalc.training.run_folder import RunFolder
from phicalc.training.trainer import Trainer

from .conftest import TINY_MODEL


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes longer than these runs; `test_whole_run.py` looks at the pictures."""
    for name in ("plot_curves", "plot_parity"):
        monkeypatch.setattr(run_module, name, lambda *_: None)


def quiet(_: str) -> None:
    pass


def rows_without_time(folder: Path) -> list[dict[str, float]]:
    rows = RunFolder(folder).read_history()
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    """Both folders hold the same result, bit for bit."""
    states = [read_state(RunFolder(folder).state) for folder in (one, other)]
    assert states[0].tensors.keys() == states[1].tensors.keys()
    for key, tensor in states[0].tensors.items():
        assert torch.equal(tensor, states[1].tensors[key]), key
    positions = [state.document["position"] for state in states]
    assert all(position.pop("seconds") > 0 for position in positions)
    assert positions[0] == positions[1]
    assert rows_without_time(one) == rows_without_time(other)
    weights = [(RunFolder(f).model / "weights.safetensors").read_bytes() for f in (one, other)]
    assert weights[0] == weights[1]


def test_saved_metrics_are_those_of_the_saved_model(make_config, carbon_chain):
    config = make_config(max_epochs=3)
    result = train(config, report=quiet)
    potential, _ = load_model(result.model)
    frames = [f for f in read_frames(carbon_chain, config.data.keys) if "val" in str(f.atoms.info)]
    batch = join(prepare_samples(make_samples(frames, potential.cutoff), potential))
    errors = predict(potential, batch.graph).forces - batch.labels.forces
    rmse = 1e3 * float(errors.square().mean().sqrt())
    assert result.metrics["valid"]["metrics"]["forces_rmse"] == pytest.approx(rmse, rel=1e-9)
    row = RunFolder(config.output).read_history()[result.metrics["best_epoch"] - 1]
    assert row["valid_forces_rmse"] == pytest.approx(rmse, rel=1e-9)  # averaged weights in both


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


# What a state holds depends on the optimizer, the order of the files on the moment only.
@pytest.mark.parametrize(
    ("moment", "optimizer", "decay"),
    [
        ("before the state", "adamw", 0.0),
        ("before the state", "adamw", 0.9),
        ("before the state", "soap", 0.9),
        ("after the state", "soap", 0.9),
        ("after the history", "adamw", 0.9),
    ],
)
def test_interrupted_runs_end_like_uninterrupted_ones(
    make_config, few_frames, tmp_path, monkeypatch, moment, optimizer, decay
):
    changes = {
        "data": {"train": [str(few_frames)], "split": "key"},
        "max_epochs": 3,
        "checkpoint": {"every_steps": 1},
        "schedule": {"name": "plateau", "patience": 1, "warmup_epochs": 0.5},
        "optimizer": {"ema_decay": decay, "name": optimizer, "weight_decay": 0.01},
        "loss": {
            "charges": {"weight": 1.0, "end": 0.6},
            "energy": {"weight": 1.0, "start": 0.4},
            "forces": {"weight": 1.0, "start": 0.2},
        },
    }
    train(make_config(**changes, output=str(tmp_path / "whole")), report=quiet)
    config = make_config(**changes, output=str(tmp_path / "torn"))
    method = "append" if moment == "after the history" else "save"
    original = getattr(RunFolder, method)
    calls, kills = 0, 0

    def torn(self: RunFolder, content: object) -> None:
        nonlocal calls, kills
        calls += 1
        kill = calls % (2 if method == "append" else 3) == 0
        if not (kill and moment == "before the state"):
            original(self, content)
        if kill:
            kills += 1
            raise Killed

    monkeypatch.setattr(RunFolder, method, torn)
    for _ in range(20):
        try:
            train(config, report=quiet)
        except Killed:
            continue
        break
    assert kills >= 2
    assert_same_run(tmp_path / "whole", tmp_path / "torn")


@pytest.mark.slow
def test_a_killed_process_ends_like_an_uninterrupted_one(settings, few_frames, tmp_path):
    """Kill from outside, once: the starts of processes are what takes time here."""
    settings |= {
        "max_epochs": 8,
        "checkpoint": {"every_steps": 1, "every_epochs": 1},
        "data": {"train": [str(few_frames)], "split": "key"},
    }
    path = tmp_path / "train.yaml"
    path.write_text(dump_yaml(settings))
    train_from_yaml(path, [f"output={tmp_path / 'whole'}"], report=quiet)
    torn = [f"output={tmp_path / 'torn'}"]
    command = [sys.executable, "-m", "phicalc.training", str(path), *torn]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    state = tmp_path / "torn" / "state.safetensors"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not state.exists():
            time.sleep(0.005)
        time.sleep(random.Random(5).uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    train_from_yaml(path, torn, report=quiet)
    assert_same_run(tmp_path / "whole", tmp_path / "torn")


def test_finished_run_is_only_evaluated_again(make_config, few_frames, tmp_path):
    config = make_config(data={"train": [str(few_frames)], "split": "key"})
    first = train(config, report=quiet)
    (tmp_path / "run" / "metrics.json").unlink()
    stamp = (tmp_path / "run" / "state.safetensors").stat().st_mtime_ns
    again = train(config, report=quiet)
    assert again == first
    assert (tmp_path / "run" / "state.safetensors").stat().st_mtime_ns == stamp


def test_folder_of_another_run_is_refused(make_config, few_frames):
    make_config = partial(make_config, data={"train": [str(few_frames)], "split": "key"})
    train(make_config(max_epochs=1), report=quiet)
    with pytest.raises(ValueError, match=r"other settings \(max_epochs: 1 → 2\)"):
        train(make_config(max_epochs=2), report=quiet)
    with pytest.raises(ValueError, match=r"optimizer.lr: 0.03 → 0.02"):
        train(make_config(max_epochs=1, optimizer={"lr": 0.02}), report=quiet)
    train(make_config(max_epochs=1, threads=1), report=quiet)  # changes no number


def test_settings_added_by_a_later_version_do_not_stop_a_run(make_config, few_frames, monkeypatch):
    make_config = partial(make_config, data={"train": [str(few_frames)], "split": "key"})
    config = make_config(max_epochs=1)
    train(config, report=quiet)
    folder = RunFolder(config.output)
    state = read_state(folder.state)
    del state.document["config"]["schedule"]["hold"]  # as if it had not existed then
    folder.save(state)
    train(config, report=quiet)
    with pytest.raises(ValueError, match="schedule.hold: 0.0 → 0.5"):
        train(make_config(max_epochs=1, schedule={"hold": 0.5}), report=quiet)


def test_changed_data_are_refused(make_config, carbon_chain, tmp_path):
    text = carbon_chain.read_text()
    (tmp_path / "data.xyz").write_text(text)
    data = {"train": ["data.xyz"], "split": "key"}
    config = make_config(data=data, max_epochs=1)
    train(config, base=tmp_path, report=quiet)
    (tmp_path / "data.xyz").write_text(text.replace("energy=-6", "energy=-7", 1))
    with pytest.raises(ValueError, match="a run on other data"):
        train(config, base=tmp_path, report=quiet)


def test_seed_decides_the_result(make_config, few_frames, tmp_path):
    data = {"train": [str(few_frames)], "split": "key"}
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        train(
            make_config(data=data, max_epochs=1, seed=seed, output=str(tmp_path / name)),
            report=quiet,
        )
    assert_same_run(tmp_path / "one", tmp_path / "same")
    weights = [
        (tmp_path / n / "model" / "weights.safetensors").read_bytes() for n in ("one", "other")
    ]
    assert weights[0] != weights[1]


def test_early_stopping_keeps_the_best(make_config, few_frames):
    lines: list[str] = []
    data = {"train": [str(few_frames)], "split": "key"}
    # a rate that does nothing: every validation after the first is no better
    config = make_config(
        data=data, max_epochs=9, patience=2, optimizer={"lr": 1e-300, "ema_decay": 0.0}
    )
    result = train(config, report=lines.append)
    assert len(RunFolder(config.output).read_history()) == 3
    assert result.metrics["best_epoch"] == 1
    assert "stopped: 2 validations without improvement" in lines
    assert len(RunFolder(config.output).read_history()) == 3
    assert train(config, report=quiet) == result  # a stopped run stays stopped


def test_validation_at_intervals_and_at_the_end(make_config, few_frames):
    data = {"train": [str(few_frames)], "split": "key"}
    config = make_config(data=data, max_epochs=5, validate_every=3)
    train(config, report=quiet)
    history = RunFolder(config.output).read_history()
    assert [row["epoch"] for row in history if "valid_loss" in row] == [3, 5]


def test_no_validation_set_judges_by_training_loss(make_config, carbon_chain):
    data = {"train": [str(carbon_chain)], "split": "random", "valid_count": 0}
    config = make_config(data=data, max_epochs=2)
    result = train(config, report=quiet)
    losses = [row["train_loss"] for row in RunFolder(config.output).read_history()]
    assert result.metrics["best_epoch"] == 1 + losses.index(min(losses))
    assert "valid" not in result.metrics


def test_divergence_stops_and_keeps_the_last_good_state(make_config, few_frames, monkeypatch):
    data = {"train": [str(few_frames)], "split": "key"}
    config = make_config(data=data, max_epochs=4)
    update = MovingAverage.update

    def spoil(self: MovingAverage) -> None:
        update(self)
        if self.n_updates == 5:
            next(self.model.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(MovingAverage, "update", spoil)
    with pytest.raises(
        TrainingDiverged, match=r"loss inf.*step 5 \(epoch 3\).*smaller optimizer.lr"
    ):
        train(config, report=quiet)
    folder = RunFolder(config.output)
    state = read_state(folder.state)
    assert state.document["position"]["epoch"] == 2
    assert all(t.isfinite().all() for t in state.tensors.values() if t.is_floating_point())
    load_model(folder.model)
    monkeypatch.undo()
    train(config, report=quiet)  # and goes on from there
    assert len(folder.read_history()) == 4


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("charges", {"head": "qeq"}),
        ("dipole", {"head": "qeq"}),
        ("dipole", {"head": "latent"}),
        ("dipole", {"atomic_dipoles": True}),
    ],
)
def test_charges_and_dipoles_can_be_learned(make_config, few_frames, name, head):
    keys = {"dipole_origin": "coordinates"}
    data = {"train": [str(few_frames)], "split": "key", "keys": keys}
    loss = {"energy": {"weight": 0.0}, "forces": {"weight": 0.0}, name: {"weight": 1.0}}
    model = {**TINY_MODEL, "layers": 2, "channels": 16, **head}
    # One batch holds all frames: the errors of the first epoch are those before any training.
    changes = {"batch_size": 8, "max_epochs": 24, "optimizer": {"lr": 0.03}}
    config = make_config(data=data, loss=loss, model=model, **changes)
    train(config, report=quiet)
    errors = [row[f"train_{name}_rmse"] for row in RunFolder(config.output).read_history()]
    assert errors[-1] < 0.5 * errors[0]  # charges start near zero: of about the size of the labels


def test_stages_train_one_term_after_the_other(make_config):
    """Charges first, then energies and forces; validation looks at the latter from the start."""
    loss = {
        "charges": {"weight": 1.0, "end": 0.5},
        "energy": {"weight": 1.0, "start": 0.5},
        "forces": {"weight": 1.0, "start": 0.5},
    }
    optimizer = {"name": "adam", "lr": 0.02, "ema_decay": 0.0}
    changes = {"loss": loss, "max_epochs": 12, "optimizer": optimizer}
    config = make_config(**changes)
    train(config, report=quiet)
    rows = RunFolder(config.output).read_history()
    charges, forces = ([row[f"train_{n}_rmse"] for row in rows] for n in ("charges", "forces"))
    assert charges[5] < 0.9 * charges[0]
    assert min(forces[6:]) < 0.8 * min(forces[:6])
    assert rows[-1]["valid_loss"] < 0.8 * rows[5]["valid_loss"]


def test_heads_without_charges_cannot_learn_them(make_config, settings):
    model = {**settings["model"], "head": "none"}
    train(make_config(model=model, max_epochs=1), report=quiet)
    with pytest.raises(ValueError, match="loss.dipole has a weight, but model.head 'none'"):
        train(make_config(model=model, loss={"dipole": {"weight": 1.0}}), report=quiet)


def test_random_numbers_and_threads_of_the_caller_are_left_alone(make_config):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    seen = set()
    torch.set_num_threads(2)
    config = make_config(max_epochs=1, threads=1)
    train(config, report=lambda _: seen.add(torch.get_num_threads()))
    assert torch.equal(torch.rand(3), expected)
    assert seen == {1}
    assert torch.get_num_threads() == 2


def broken_compiler(*_: object, **__: object):
    def fail(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nlong story")

    return fail


def test_failing_compiler_is_reported_once_and_survived(
    make_config, few_frames, monkeypatch, tmp_path
):
    make_config = partial(make_config, data={"train": [str(few_frames)], "split": "key"})
    monkeypatch.setattr(torch, "compile", broken_compiler)
    monkeypatch.setattr(engine_module, "AUTO_COMPILE_STEPS", 3)
    lines: list[str] = []
    config = make_config(compile="auto", output=str(tmp_path / "auto"))
    train(config, report=lines.append)
    assert sum("RuntimeError: no C++ compiler); continuing uncompiled" in x for x in lines) == 1
    train(make_config(output=str(tmp_path / "plain")), report=quiet)
    assert_same_run(tmp_path / "auto", tmp_path / "plain")
    with pytest.raises(RuntimeError, match="no C"):
        train(make_config(compile=True, output=str(tmp_path / "strict")), report=quiet)


def test_short_runs_are_not_compiled(make_config, monkeypatch):
    monkeypatch.setattr(torch, "compile", broken_compiler)
    lines: list[str] = []
    train(make_config(compile="auto", max_epochs=1), report=lines.append)
    assert not any(line.startswith(("compiling", "torch.compile")) for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(
            {"head": "qeq", "hardness": "environment", "smearing": "trained", "gate": False},
            marks=pytest.mark.thorough,
            id="qeq",
        ),
        pytest.param({"head": "solve"}, marks=pytest.mark.thorough, id="solve"),
        pytest.param({"head": "acks2"}, marks=pytest.mark.thorough, id="acks2"),
    ],
)
def test_compiled_training_step_equals_the_plain_one(
    make_config, settings, carbon_chain, monkeypatch, head
):
    monkeypatch.setenv("JAXTYPING_DISABLE", "1")
    model = {
        **TINY_MODEL,
        **head,
        "l_max": 0,
        "correlation": 1,
    }  # the compiler takes minutes otherwise
    config: TrainingConfig = make_config(model=model)
    code = f"""
import torch
from phicalc.potential import build_potential
from phicalc.training.config import load_config
from phicalc.training.dataset import join, make_samples, prepare_samples
from phicalc.training.engine import Engine
from phicalc.data.files import read_frames

config = load_config({str(Path(config.output) / "config.yaml")!r})
potential = build_potential(config.model, seed=1).double()
frames = read_frames({str(carbon_chain)!r}, config.data.keys)
samples = prepare_samples(make_samples(frames, potential.cutoff), potential)
results = []
for compile in (False, True):
    engine = Engine(potential, stress=False, compile=compile, n_steps=9, report=print)
    for batch in (join(samples[:3]), join(samples[12:16])):  # another size, the same code
        prediction = engine(batch.graph)
        potential.zero_grad()
        (prediction.forces.square().mean() + 0.01 * prediction.energy.square().mean()).backward()
        gradient = torch.cat([p.grad.ravel() for p in potential.parameters() if p.grad is not None])
        results.append((prediction.forces.detach(), gradient))
for plain, compiled in zip(results[:2], results[2:]):
    for a, b in zip(plain, compiled):
        torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-10 * float(a.abs().max()))
"""
    RunFolder(config.output).open(config)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


STRESS_STEPS = """
import functools, torch
from ase.build import bulk
from phicalc.graph import collate, from_ase
from phicalc.potential import build_potential
from phicalc.training.config import config_from_dict
from phicalc.training.engine import Engine
torch.compile = functools.partial(torch.compile, backend="eager")  # traced, but no machine code
potential = build_potential(config_from_dict(SETTINGS).model, seed=1).double()
boxes = [bulk("CH", "rocksalt", a=4.4).repeat(n) for n in ((1, 1, 2), (1, 2, 2))]
for atoms in boxes:
    atoms.rattle(0.1, seed=3)
graph = potential.prepare(collate([from_ase(atoms, potential.cutoff) for atoms in boxes]))
results = []
for compile in (False, True):
    engine = Engine(potential, stress=True, compile=compile, n_steps=9, report=print)
    def work():
        prediction = engine(graph)
        potential.zero_grad()
        (prediction.forces.square().mean() + 1e4 * prediction.stress.square().mean()).backward()
        return prediction
    prediction = engine.attempt(work)
    gradients = [p.grad.ravel() for p in potential.parameters() if p.grad is not None]
    results.append((prediction.stress.detach(), torch.cat(gradients)))
for plain, compiled in zip(*results):
    torch.testing.assert_close(compiled, plain, rtol=1e-8, atol=1e-10 * float(plain.abs().max()))
assert results[0][0].abs().max() > 1e-4
"""


@pytest.mark.slow
def test_stress_is_compiled_like_forces(settings, tmp_path):
    """A stress in the loss kept the whole training from being compiled."""
    wanted = {**settings, "model": {**settings["model"], "head": "none"}}
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    code = STRESS_STEPS.replace("SETTINGS", repr(wanted))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "compiling energy, forces and stress" in done.stdout


SIZES = """
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from phicalc.graph import from_ase
from phicalc.potential import build_potential
from phicalc.structures import water_box
from phicalc.training.config import config_from_dict
from phicalc.training.engine import Engine
counter = CompileCounterWithBackend("eager")
plain_compile = torch.compile
torch.compile = lambda *args, **options: plain_compile(*args, **options, backend=counter)
# equal numbers of waves along all axes by chance, and others later
boxes = [water_box(8), water_box(8).repeat((1, 1, 2)), water_box(12)]
potential = build_potential(config_from_dict(SETTINGS).model, seed=1).double()
engine = Engine(potential, stress=True, compile=True, n_steps=9, report=print)
for box in boxes:
    graph = potential.prepare(from_ase(box, potential.cutoff))
    engine.attempt(lambda: engine(graph).forces.square().mean().backward())
assert counter.frame_count == 1, counter.frame_count
"""


@pytest.mark.slow
def test_structures_of_all_sizes_are_compiled_once(settings):
    backbone = {**settings["model"]["backbone"], "l_max": 0}
    model = {**settings["model"], "elements": ["H", "O"], "head": "latent", "backbone": backbone}
    code = SIZES.replace("SETTINGS", repr({**settings, "model": model}))
    environment = {**os.environ, "JAXTYPING_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_plain_engine_equals_predict(make_config, carbon_chain):
    config = make_config()
    potential = build_potential(config.model, seed=1).double()
    frames = read_frames(carbon_chain, config.data.keys)[:2]
    batch = join(prepare_samples(make_samples(frames, potential.cutoff), potential))
    engine = Engine(potential, stress=False, compile="auto", n_steps=1, report=quiet)
    prediction = engine(batch.graph)
    assert prediction.forces.requires_grad
    assert not batch.graph.positions.requires_grad  # the samples are not touched
    expected = predict(potential, batch.graph).forces
    assert torch.allclose(prediction.forces.detach(), expected, rtol=1e-12, atol=1e-12)


def with_frame(
    carbon_chain: Path, folder: Path, split: str, change: Callable[[Atoms], None]
) -> str:
    """File with the frames of the chain and one more."""
    frames = ase.io.read(carbon_chain, ":")
    odd = frames[0].copy()
    odd.info |= {"split": split, "energy": -1.0}
    odd.arrays["forces"] = np.zeros((len(odd), 3))
    change(odd)
    ase.io.write(folder / "odd.xyz", [*frames, odd], format="extxyz")
    return str(folder / "odd.xyz")


def test_frames_for_validation_with_other_elements_are_refused(make_config, carbon_chain, tmp_path):
    data = with_frame(
        carbon_chain, tmp_path, "val", lambda atoms: atoms.set_atomic_numbers([8] * 12)
    )
    with pytest.raises(ValueError, match=r"the data also hold O \(odd.xyz, frame 30\)"):
        train(make_config(data={"train": [data], "split": "key"}), report=quiet)


@pytest.mark.parametrize("split", ["val", "train"])
def test_atoms_that_coincide_are_refused(make_config, carbon_chain, tmp_path, split):
    def coincide(atoms: Atoms) -> None:
        atoms.positions[3] = atoms.positions[7] + [0.01, 0, 0]

    data = with_frame(carbon_chain, tmp_path, split, coincide)
    with pytest.raises(ValueError, match=r"odd.xyz, frame 30: atoms 3 and 7 are 0.01 Å apart"):
        train(make_config(data={"train": [data], "split": "key"}), report=quiet)


def test_validation_that_is_never_finite_is_no_success(make_config, monkeypatch):
    monkeypatch.setattr(Trainer, "_validate", lambda _: {"loss": float("inf")})
    config = make_config(max_epochs=2)
    for _ in range(2):  # and not the second time either
        with pytest.raises(TrainingDiverged, match="no validation gave a finite loss"):
            train(config, report=quiet)
    assert not RunFolder(config.output).metrics.exists()


def test_no_patience_is_lost_before_all_terms_count(make_config, few_frames, monkeypatch):
    data = {"train": [str(few_frames)], "split": "key"}
    losses = iter([1.0, *range(2, 20)])
    monkeypatch.setattr(Trainer, "_validate", lambda _: {"loss": float(next(losses))})
    terms = {
        "charges": {"weight": 1.0, "end": 0.5},
        "energy": {"weight": 1.0, "start": 0.5},
        "forces": {"weight": 1.0, "start": 0.5},
    }
    config = make_config(data=data, max_epochs=10, patience=2, loss=terms)
    train(config, report=quiet)
    # half of the steps are done after epoch 5: that validation and the next lose patience
    assert [row["epoch"] for row in RunFolder(config.output).read_history()] == [1, 2, 3, 4, 5, 6]


def test_two_runs_in_one_folder_are_refused(make_config):
    config = make_config()
    with (
        RunFolder(config.output).locked(),
        pytest.raises(RuntimeError, match="a run is going on in"),
    ):
        train(config, report=quiet)
    train(config, report=quiet)
