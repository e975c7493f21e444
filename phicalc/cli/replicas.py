"""Molecular dynamics of many structures, each in a folder of its own."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ase import Atoms
from ase.calculators.calculator import Calculator

from phicalc.cli.many import map_with_options, raise_failures
from phicalc.many import Failure
from phicalc.md import MDConfig, MDResult, make_report, run_md


def run_each(
    frames: Sequence[Atoms],
    config: MDConfig,
    calculator: Calculator,
    options: argparse.Namespace,
) -> None:
    """Run the dynamics of all structures, each in a sub-folder and with a different seed.

    Raises
    ------
    ValueError
        If the number of replicas is not positive.
    Exception
        What went wrong, if there was one run only.
    RuntimeError
        If some of several runs failed, once the others have ended.
    """
    if options.replicas < 1:
        raise ValueError(f"--replicas must be positive, got {options.replicas}")
    frames = [atoms for atoms in frames for _ in range(options.replicas)]
    folder = Path(options.output).resolve()  # workers may have been started elsewhere
    modes = {"restart": options.restart, "overwrite": options.overwrite}
    task = partial(_run, config, folder, modes, not options.no_report)
    outcomes = map_with_options(task, frames, calculator, options, chunk=1)
    for outcome in outcomes:
        if not isinstance(outcome, Failure):
            speed = f"{outcome.seconds:.1f} s ({outcome.ns_per_day:.3g} ns/day)"
            print(f"{outcome.final.parent}: {speed}")
    raise_failures(outcomes)


def _run(
    config: MDConfig,
    folder: Path,
    modes: dict[str, bool],
    report: bool,
    indices: Sequence[int],
    frames: Sequence[Atoms],
    calculator: Calculator,
) -> list[MDResult]:
    """Run the dynamics of some structures."""
    results = []
    for index, atoms in zip(indices, frames, strict=True):
        atoms.calc = calculator
        output = folder / f"{index:03d}"
        one = replace(config, seed=config.seed + index)
        results.append(run_md(atoms, one, output, progress=False, **modes))
        if report:
            make_report(output)
    return results
