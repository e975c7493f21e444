"""What verbs do with many structures: evaluate or relax them, here or on workers."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms
from ase.calculators.calculator import Calculator

from phicalc.cli.arguments import calculator_of
from phicalc.cli.watching import watch
from phicalc.many import Failure, Task, map_structures
from phicalc.progress import Progress
from phicalc.relax import RelaxResult, relax
from phicalc.structures import evaluate_structures, snapshot


class Relaxed(NamedTuple):
    """A relaxed structure with its results, and how it came about."""

    before: float
    """Energy at the start, in eV."""
    result: RelaxResult
    atoms: Atoms


def predict_each(frames: Sequence[Atoms], options: argparse.Namespace) -> list[Any]:
    """Evaluate structures, in batches."""
    task = partial(_predict, not options.no_stress)
    return map_with_options(task, frames, calculator_of(options), options)


def _predict(
    stress: bool, indices: Sequence[int], frames: Sequence[Atoms], calculator: Calculator
) -> list[Atoms]:
    return evaluate_structures(frames, calculator, stress=stress)


def relax_each(frames: Sequence[Atoms], options: argparse.Namespace) -> list[Any]:
    """Relax structures one by one.

    Raises
    ------
    ValueError
        For a trajectory of several structures.
    """
    if options.trajectory and len(frames) > 1:
        raise ValueError(
            f"--trajectory is for one structure, got {len(frames)}: choose it with --index"
        )
    names = ("fmax", "smax", "steps", "cell", "symmetry", "pressure", "optimizer")
    settings = {name: getattr(options, name) for name in names}
    settings["log"] = "-" if options.verbose else None
    settings["trajectory"] = Path(options.trajectory).resolve() if options.trajectory else None
    task = partial(_relax, settings)
    return map_with_options(task, frames, calculator_of(options), options, chunk=1)


def _relax(
    settings: dict[str, Any],
    indices: Sequence[int],
    frames: Sequence[Atoms],
    calculator: Calculator,
) -> list[Relaxed]:
    return [_relax_one(settings, atoms, calculator) for atoms in frames]


def _relax_one(settings: dict[str, Any], atoms: Atoms, calculator: Calculator) -> Relaxed:
    atoms.calc = calculator
    before = float(atoms.get_potential_energy())
    result = relax(atoms, **settings)
    return Relaxed(before, result._replace(structure=None), snapshot(atoms))


def map_with_options(
    task: Task[Any],
    frames: Sequence[Atoms],
    calculator: Calculator,
    options: argparse.Namespace,
    chunk: int | None = None,
) -> list[Any]:
    """Map a task over structures as the options of `add_scheduler` say."""
    label = f"phicalc {options.verb}"
    if chunk == 1 and options.workers == 1 and not options.scheduler:
        watch(calculator, label)
    return map_structures(
        task,
        frames,
        calculator,
        workers=options.workers,
        scheduler=options.scheduler,
        chunk=chunk,
        progress=Progress(label),
    )


def raise_failures(outcomes: Sequence[Any]) -> None:
    """Report structures that failed, once the others have been dealt with.

    Raises
    ------
    Exception
        What went wrong, if there was one structure only.
    RuntimeError
        If some of several structures failed, naming them.
    """
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if len(failures) == 1 == len(outcomes):
        raise failures[0].error
    if failures:
        texts = "; ".join(map(str, failures))
        error = RuntimeError(f"{len(failures)} of {len(outcomes)} structures failed: {texts}")
        raise error from failures[0].error
