"""What the last-layer uncertainty is worth, and costs: `make bench ARGS="-k uncertainty"`.

For shipped models whose data are at hand (in the repository or $PHICALC_DATA): the uncertainty is
fitted on training frames (at most PHICALC_BENCH_FRAMES, 400 by default), calibrated on half of the
frames for validation, and judged on the other half and the test frames. Prints coverages (a normal
distribution has 68.3 and 95.4 %), rank correlations of error and standard deviation, frames
outside, and how well the distance of the outermost atom separates these frames from compressed,
stretched, shaken and transmuted ones (area under the ROC curve; part of them that is outside).
Pictures of errors against standard deviations go into `.benchmarks/`.

The cost is that of whole calculations with and without, alternately, on one thread, compiled; that
of all checks of structures and results is the time that passes in them (`-k checks_cost`). Times
are those of the processor, to which other programs matter less.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from phicalc import PhiCalculator
from phicalc.checkpoint import load_model, read_card
from phicalc.data.config import DataConfig
from phicalc.data.frames import LabelledAtoms
from phicalc.inference import evaluate as evaluating
from phicalc.inference.closeness import PairWatch
from phicalc.inference.workspace import Workspace
from phicalc.potential import Potential
from phicalc.registry import find_model
from phicalc.schema import build
from phicalc.structures import water_box
from phicalc.system import keep_freed_memory
from phicalc.training.dataset import Sample, Splits, load_splits, make_samples, prepare_samples
from phicalc.training.objective import LossConfig
from phicalc.training.plots import plot_deviations
from phicalc.training.uncertainty import calibration, fit_uncertainty
from phicalc.uncertainty import LastLayerUncertainty

from .conftest import FOLDER

FRAMES = int(os.environ.get("PHICALC_BENCH_FRAMES", "400"))
#: Frames that are bent out of shape.
BENT = 30


def scaled(atoms: Atoms, factor: float) -> None:
    """Multiply all distances."""
    atoms.set_cell(atoms.cell * factor)
    atoms.positions *= factor


def transmuted(atoms: Atoms, rng: np.random.Generator) -> None:
    """Exchange two atoms of unlike elements, if there are any."""
    first, others = rng.integers(len(atoms)), atoms.numbers
    unlike = np.flatnonzero(others != others[first])
    if len(unlike):
        second = rng.choice(unlike)
        atoms.numbers[[first, second]] = atoms.numbers[[second, first]]


BENDINGS: dict[str, Callable[[Atoms, np.random.Generator], None]] = {
    "compressed by 15 %": lambda atoms, _: scaled(atoms, 0.85),
    "stretched by 20 %": lambda atoms, _: scaled(atoms, 1.2),
    "shaken by 0.3 Å": lambda atoms, rng: atoms.rattle(0.3, seed=int(rng.integers(1 << 30))),
    "two atoms exchanged": transmuted,
}


def bent(
    frames: list[LabelledAtoms], bend: Callable[[Atoms, np.random.Generator], None]
) -> list[LabelledAtoms]:
    """Return frames that are bent out of shape, those left alone by it not among them."""
    rng, found = np.random.default_rng(1), []
    for frame in frames[:BENT]:
        atoms = frame.atoms.copy()
        bend(atoms, rng)
        same = np.array_equal(atoms.positions, frame.atoms.positions)
        if not same or np.any(atoms.numbers != frame.atoms.numbers):
            found.append(frame._replace(atoms=atoms))
    return found


def separation(inside: np.ndarray, outside: np.ndarray) -> float:
    """Area under the ROC curve."""
    above, equal = outside[:, None] > inside, outside[:, None] == inside
    return float(np.mean(above + 0.5 * equal))


def splits_of(name: str) -> Splits:
    """Return the frames that a shipped model was trained on, and those kept out."""
    config = read_card(name).training["config"]
    data = build(DataConfig, config["data"], "data")
    return load_splits(data, build(LossConfig, config["loss"], "loss"), find_model(name))


def samples_of(frames: list[LabelledAtoms], potential: Potential, refuse: bool = True) -> list:
    """Prepare frames; without `refuse` those in which two atoms coincide are left out."""
    samples: list[Sample] = []
    for frame in frames:
        with suppress(*([] if refuse else [ValueError])):
            samples += make_samples([frame], potential.cutoff)
    return prepare_samples(samples, potential)


SETS = ["rocksalts", "ag3", "carbon-chains", "nacl-clusters", "dipeptides", "water-small"]


@pytest.fixture(scope="module")
def pictured() -> Iterator[dict[str, Any]]:
    """Errors and standard deviations of all sets, drawn into one picture at the end."""
    found: dict[str, Any] = {}
    yield found
    if found:
        plot_deviations(found, FOLDER / "uncertainty.png", columns=4)


@pytest.mark.parametrize("name", SETS)
def test_uncertainty_is_calibrated(
    name: str, pictured: dict[str, Any], record: Callable[[str, float], None]
) -> None:
    try:
        splits = splits_of(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    potential = load_model(name, device="cpu")[0].requires_grad_(False)
    stride = -(-len(splits.train) // FRAMES)
    judged = [*splits.valid[1::2], *splits.test]
    fit_uncertainty(
        potential,
        samples_of(splits.train[::stride], potential),
        samples_of(splits.valid[::2], potential),
    )
    found = calibration(potential, samples_of(judged, potential))
    FOLDER.mkdir(exist_ok=True)
    plot_deviations(found.by_title(), FOLDER / f"uncertainty_{name}.png")
    pictured |= {f"{name}: {title}": points for title, points in found.by_title().items()}
    print(f"\n{name}, {len(judged)} frames: {found.line()}")
    metrics = found.metrics()
    for key, value in metrics.items():
        record(f"uncertainty, {name}, {key}", value)
    for kind, bend in BENDINGS.items():
        strange = bent(judged, bend)
        if not strange:
            print(f"  {kind:<22} –")
            continue
        far = calibration(potential, samples_of(strange, potential, refuse=False)).farthest
        area = separation(found.farthest, far)
        print(f"  {kind:<22} ROC area {area:.3f}, outside {np.mean(far > 1):.0%}")
        record(f"uncertainty, {name}, {kind}, ROC area", area)
    assert metrics["outside"] <= 0.01
    assert metrics["forces_within_2std"] > 0.85


COSTS = {
    "64 waters": ("water-pbe0", lambda: water_box(64)),
    "192 waters": ("water-pbe0", lambda: water_box(192)),
    "51 atoms (17 waters)": ("organics", lambda: seventeen_waters()),
}


def seventeen_waters() -> Atoms:
    """Return a drop."""
    atoms = water_box(17, density=0.9)
    atoms.pbc = False
    return atoms


@pytest.fixture
def kept_functions(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep compiled functions for this run, or in $PHICALC_CACHE, and freed memory for a step."""
    if "PHICALC_CACHE" not in os.environ:
        monkeypatch.setenv("PHICALC_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))
    keep_freed_memory()


@pytest.mark.parametrize("what", COSTS)
@pytest.mark.usefixtures("kept_functions")
def test_uncertainty_costs_little(what: str, record: Callable[[str, float], None]) -> None:
    name, make = COSTS[what]
    potential = load_model(name, device="cpu")[0]
    module = LastLayerUncertainty(potential.n_last, len(potential.elements))
    module.whitening.copy_(torch.randn(module.whitening.shape) / 1e3)
    module.bounds.fill_(1e6)
    potential.uncertainty = module
    times: dict[bool, list[float]] = {True: [], False: []}
    atoms, results = make(), []
    calculators = {
        on: PhiCalculator(potential, device="cpu", compile=True, uncertainty=on) for on in times
    }
    for step in range(120):
        atoms.rattle(0.001, seed=step)
        for on in (True, False) if step % 2 else (False, True):
            start = time.process_time()
            calculators[on].calculate(atoms, ["energy", "forces"])
            times[on].append(time.process_time() - start)
        results.append([calculators[on].results for on in times])
    with_it, without = (1e3 * statistics.median(times[on][10:]) for on in (True, False))
    print(f"\n{what}: {without:.2f} ms a step, {with_it:.2f} with uncertainty")
    record(f"uncertainty, {what}, cost of a step", with_it / without)
    for one, other in results:
        assert one["energy"] == other["energy"]
        assert np.array_equal(one["forces"], other["forces"])
    assert with_it / without < 1.05


#: Checks by the modules that call them.
CHECKS: dict[Any, tuple[str, ...]] = {
    evaluating: (
        "_check_atoms", "structure_concerns", "distance_concerns",
        "environment_concerns", "uncertainty_concerns", "refuse_implausible", "result_concerns",
        "fragment_concerns",
    ),
    PairWatch: ("closest",),
    Workspace: ("strange_atom", "parts"),
}  # fmt: skip


def stopwatch(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list that the seconds of every check go to from now on."""
    seconds: list[float] = []

    def timed(check: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            start = time.process_time()
            found = check(*arguments)
            found = list(found) if isinstance(found, Iterator) else found
            seconds.append(time.process_time() - start)
            return found

        return run

    for owner, names in CHECKS.items():
        for name in names:
            monkeypatch.setattr(owner, name, timed(getattr(owner, name)))
    return seconds


@pytest.mark.parametrize("what", COSTS)
@pytest.mark.usefixtures("kept_functions")
@pytest.mark.filterwarnings("ignore::phicalc.inference.concerns.DomainWarning")
def test_checks_cost_little(
    what: str, monkeypatch: pytest.MonkeyPatch, record: Callable[[str, float], None]
) -> None:
    name, make = COSTS[what]
    atoms, calculator = make(), PhiCalculator(name, device="cpu", compile=True)
    seconds, steps, checks = stopwatch(monkeypatch), [], []
    for step in range(120):
        atoms.rattle(0.001, seed=step)
        seconds.clear()
        start = time.process_time()
        calculator.calculate(atoms, ["energy", "forces"])
        steps.append(time.process_time() - start)
        checks.append(sum(seconds))
    assert min(checks) > 0
    share = sum(checks[10:]) / sum(steps[10:])
    print(
        f"\n{what}: {1e3 * statistics.median(steps[10:]):.2f} ms a step, {share:.1%} of it checks"
    )
    record(f"checks, {what}, part of a step", share)
    assert share < 0.05
