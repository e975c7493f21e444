"""What verbs do with many structures, in this process or over a dask scheduler."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms
from ase.calculators.calculator import Calculator

from phicalc.cli.arguments import calculator_of
from phicalc.integrations.dask import LOCAL, Failure, Task, map_structures
from phicalc.md import MDConfig, MDResult, make_report, run_md
from phicalc.relax import RelaxResult, relax
from phicalc.structures import evaluate_structures, snapshot


class Relaxed(NamedTuple):
    """A relaxed structure with its results, and how it came about."""

    before: float
    """Energy at the start, in eV."""
    result: RelaxResult
    atoms: Atoms


def wants_scheduler(options: argparse.Namespace) -> bool:
    """Whether the options of `add_scheduler` were used."""
    return bool(options.scheduler or options.workers is not None)


def predict_each(frames: Sequence[Atoms], options: argparse.Namespace) -> list[Any]:
    """Evaluate structures one by one."""
    task = partial(_predict_one, not options.no_stress)
    return _each(task, frames, calculator_of(options), options)


def _predict_one(stress: bool, index: int, atoms: Atoms) -> Atoms:
    return evaluate_structures([atoms], atoms.calc, stress=stress)[0]


def relax_each(frames: Sequence[Atoms], options: argparse.Namespace) -> list[Any]:
    """Relax structures one by one."""
    if options.trajectory and len(frames) > 1:
        raise ValueError(
            f"--trajectory is for one structure, got {len(frames)}: choose it by --index"
        )
    names = ("fmax", "smax", "steps", "cell", "symmetry", "pressure", "optimizer")
    settings = {name: getattr(options, name) for name in names}
    settings["log"] = "-" if options.verbose else None
    settings["trajectory"] = Path(options.trajectory).resolve() if options.trajectory else None
    return _each(partial(_relax_one, settings), frames, calculator_of(options), options)


def _relax_one(settings: dict[str, Any], index: int, atoms: Atoms) -> Relaxed:
    before = float(atoms.get_potential_energy())
    result = relax(atoms, **settings)
    return Relaxed(before, result, snapshot(atoms))


def run_each(
    frames: Sequence[Atoms],
    config: MDConfig,
    calculator: Calculator,
    options: argparse.Namespace,
) -> None:
    """Run the dynamics of all structures, each in a sub-folder and with a seed of its own."""
    if options.replicas < 1:
        raise ValueError(f"--replicas must be positive, got {options.replicas}")
    frames = [atoms for atoms in frames for _ in range(options.replicas)]
    folder = Path(options.output).resolve()  # workers may have been started elsewhere
    modes = {"restart": options.restart, "overwrite": options.overwrite}
    task = partial(_run_one, config, folder, modes, not options.no_report)
    outcomes = _each(task, frames, calculator, options)
    for outcome in outcomes:
        if not isinstance(outcome, Failure):
            speed = f"{outcome.seconds:.1f} s ({outcome.ns_per_day:.3g} ns/day)"
            print(f"{outcome.final.parent}: {speed}")
    raise_failures(outcomes)


def _run_one(
    config: MDConfig, folder: Path, modes: dict[str, bool], report: bool, index: int, atoms: Atoms
) -> MDResult:
    own = replace(config, seed=config.seed + index)
    output = folder / f"{index:03d}"
    result = run_md(atoms, own, output, progress=False, **modes)
    if report:
        make_report(output)
    return result


def _each(
    task: Task, frames: Sequence[Atoms], calculator: Calculator, options: argparse.Namespace
) -> list[Any]:
    """Map a task over structures as the options of `add_scheduler` say."""
    scheduler = options.scheduler or (LOCAL if wants_scheduler(options) else None)
    return map_structures(task, frames, calculator, scheduler=scheduler, workers=options.workers)


def raise_failures(outcomes: Sequence[Any]) -> None:
    """Report structures that failed, once the others have been dealt with."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if len(failures) == 1 == len(outcomes):
        raise failures[0].error
    if failures:
        texts = "; ".join(map(str, failures))
        error = RuntimeError(f"{len(failures)} of {len(outcomes)} structures failed: {texts}")
        raise error from failures[0].error
