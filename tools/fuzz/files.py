"""Damaged files: bits flipped, ends cut off, bytes swapped; none may be used in silence."""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc import CommitteeCalculator, PhiCalculator, load_model
from phicalc.labelling import CalculatorSpec, label
from phicalc.md import MDConfig, run_md
from phicalc.training import config_from_dict, train
from tools.fuzz.damage import damaged
from tools.fuzz.models import config_of, scratch, tiny_model, water
from tools.fuzz.verdicts import Case, Unforgivable


class Kind(NamedTuple):
    """A kind of file: how to make it, and how to use it."""

    make: Callable[[Path], None]
    """Write an undamaged folder."""
    files: str
    """Pattern of the files that are damaged."""
    use: Callable[[Path], Any]
    """Use the folder; returns all numbers that come of it."""
    same_is_fine: bool = False
    """Whether damage that changes no number may be accepted (in free text, at a line's end)."""


#: Of damage; the most frequent one first.
WAYS = ("bit", "bit", "bit", "bit", "cut", "digit", "swap")


class Stopped(Exception):
    """Ends a training run at a point that a test chooses."""


def make_case(seed: int) -> Case:
    """Make the case of a seed: the kinds in turn."""
    rng = np.random.default_rng([4, seed])
    names = tuple(name for name in KINDS if name != "compiled" or _compiled_there())
    name = names[seed % len(names)]
    kind = KINDS[name]
    way = WAYS[seed // len(names) % len(WAYS)]
    _template(name)  # may compile for longer than a case may take
    run = lambda: _run(name, kind, way, rng)  # noqa: E731
    return Case(f"{name}: {way}", f"one {way} of {kind.files}, seed {seed}", run)


def _run(name: str, kind: Kind, way: str, rng: np.random.Generator) -> None:
    template, expected = _template(name)
    folder = scratch() / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    paths = sorted(path for path in folder.glob(kind.files) if path.is_file())
    path = paths[rng.integers(len(paths))]
    content, where = damaged(path.read_bytes(), way, rng)
    path.write_bytes(content)
    said = StringIO()
    with (
        redirect_stdout(said),
        redirect_stderr(said),
        warnings.catch_warnings(record=True) as heard,
    ):
        warnings.simplefilter("always")
        found = kind.use(folder)
    # Only words about the damage count: some structures are warned of anyway.
    if _says(said.getvalue()) or any(_says(str(warning.message)) for warning in heard):
        return
    if found != expected:
        raise Unforgivable(f"used in silence, other numbers ({path.name}, byte {where})")
    if not kind.same_is_fine:
        raise Unforgivable(f"used in silence, same numbers ({path.name}, byte {where})")


def _says(text: str) -> bool:
    return any(word in text.lower() for word in ("damaged", "checksum", "digest", "discard"))


@cache
def _template(name: str) -> tuple[Path, Any]:
    """Make the undamaged folder of a kind once, and the numbers that it gives."""
    folder = scratch() / f"template-{name}"
    kind = KINDS[name]
    kind.make(folder)
    copy = scratch() / "damaged"  # where damaged ones will lie: names get into results
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return folder, kind.use(copy)


def _make_model(folder: Path) -> None:
    shutil.copytree(tiny_model("qeq"), folder)


def _numbers(calculator: Any) -> list[Any]:
    """Energies, forces and charges of two structures, to the last bit."""
    found = []
    for charge in (0.0, 3.0):
        atoms = water(2)
        atoms.info["charge"] = charge
        atoms.calc = calculator
        found.append(atoms.get_potential_energy())
        found.append(atoms.get_forces().tolist())
    return found


def _use_model(folder: Path) -> list[Any]:
    potential, card = load_model(folder)
    numbers = _numbers(PhiCalculator(folder, compile=False, device="cpu"))
    return [*numbers, json.dumps(potential.config.to_dict()), card.charge_range, card.dtype]


def _make_committee(folder: Path) -> None:
    for index, name in enumerate(("qeq", "qeq-feedback")):
        shutil.copytree(tiny_model(name), folder / f"member_{index}" / "model")


def _use_committee(folder: Path) -> list[Any]:
    return _numbers(CommitteeCalculator(folder, compile=False, device="cpu"))


def _dynamics(folder: Path, steps: int, restart: bool) -> list[Any]:
    atoms = water(2)
    atoms.calc = PhiCalculator(tiny_model("none"), compile=False, device="cpu", dtype="float64")
    config = MDConfig(steps=steps, timestep=0.1, checkpoint_interval=2, temperature=100.0)
    result = run_md(atoms, config, folder, restart=restart, progress=False)
    lines = (folder / "log.csv").read_text().splitlines()
    return [atoms.positions.tolist(), len(lines), result.first_step]


def _make_dynamics(folder: Path) -> None:
    _dynamics(folder, 4, restart=False)


def _use_dynamics(folder: Path) -> list[Any]:
    return _dynamics(folder, 6, restart=True)


@cache
def _training_data() -> Path:
    path = scratch() / "train.extxyz"
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(6):
        atoms = water(1)
        atoms.rattle(0.05, rng=rng)
        forces = rng.normal(size=(3, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal()), forces=forces)
        frames.append(atoms)
    ase.io.write(path, frames)
    return path


def _train(folder: Path, stop_at: Callable[[str], bool]) -> list[str]:
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        print(line)
        if stop_at(line):
            raise Stopped

    kept = ("cutoff", "backbone", "head")
    network = config_of("none").to_dict()
    model = {key: network[key] for key in kept}
    settings = {
        "data": {"train": [str(_training_data())], "valid_count": 2},
        "model": {**model, "elements": ["H", "O"]},
        "output": str(folder), "batch_size": 2, "max_epochs": 4, "device": "cpu",
        "compile": False, "threads": 1,
    }  # fmt: skip
    try:
        train(config_from_dict(settings), report=report)
    except Stopped:
        return said
    raise AssertionError("the training was not stopped")


def _make_training(folder: Path) -> None:
    _train(folder, lambda line: (folder / "state.safetensors").exists() and "epoch" in line)


def _use_training(folder: Path) -> list[str]:
    """Continue for an epoch; returns its line (the losses) without times."""
    seen: list[str] = []

    def is_epoch(line: str) -> bool:
        seen.append(line)
        return len(seen) > 2 and "epoch" in line and "continuing" not in line

    return [line.rsplit("  ", 1)[0] for line in _train(folder, is_epoch)]


class Halting:
    """Stops a labelling run after some frames, as a kill would."""

    left = -1


def _labels(folder: Path) -> list[Any]:
    frames = []
    for index in range(4):
        atoms = water(1)
        atoms.positions[0, 0] += 0.02 * index
        frames.append(atoms)
    spec = CalculatorSpec("tools.fuzz.files:Halter", {})
    output = folder / "labels.extxyz"
    label(frames, spec, output, progress=False)
    return [output.read_text()]


def _make_journal(folder: Path) -> None:
    folder.mkdir()
    Halting.left = 3
    try:
        _labels(folder)
    except KeyboardInterrupt:
        pass
    finally:
        Halting.left = -1
    if not list(folder.glob(KINDS["label journal"].files)):
        raise AssertionError(f"no journal among {os.listdir(folder)}")


def Halter(**arguments: Any) -> Any:
    """Return a Lennard-Jones calculator that interrupts itself when `Halting` says so."""
    from ase.calculators.lj import LennardJones

    class _Halter(LennardJones):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            if Halting.left == 0:
                raise KeyboardInterrupt
            Halting.left -= 1
            super().calculate(*args, **kwargs)

    return _Halter(**arguments)


def _compiled_there() -> bool:
    """Whether compiled functions of the tiny model lie where ``PHICALC_FUZZ_COMPILED`` says."""
    return bool(os.environ.get("PHICALC_FUZZ_COMPILED"))


def _make_compiled(folder: Path) -> None:
    os.environ["PHICALC_CACHE"] = str(folder)
    PhiCalculator(tiny_model("none"), compile=True, device="cpu").calculate(water(2), ["forces"])


def _use_compiled(folder: Path) -> list[Any]:
    os.environ["PHICALC_CACHE"] = str(folder)
    return _numbers(PhiCalculator(tiny_model("none"), compile="auto", device="cpu"))


KINDS: dict[str, Kind] = {
    "weights": Kind(_make_model, "weights.safetensors", _use_model),
    "card": Kind(_make_model, "card.json", _use_model, same_is_fine=True),
    "committee": Kind(_make_committee, "member_*/model/*", _use_committee, same_is_fine=True),
    "MD checkpoint": Kind(_make_dynamics, "checkpoint.safetensors", _use_dynamics),
    "training state": Kind(_make_training, "state.safetensors", _use_training),
    "label journal": Kind(_make_journal, "*journal*", _labels, same_is_fine=True),
    "compiled": Kind(_make_compiled, "**/*", _use_compiled, same_is_fine=True),
}
COUNT = 175 * (len(KINDS) - 1 + _compiled_there())
