"""Stability: dynamics at the highest temperature that is claimed."""

import ase.io

from phicalc.analysis import find_molecules, read_trajectory
from phicalc.certificate import Curve, Figure, Plot
from phicalc.md import read_log
from phicalc.relax import relax
from phicalc.structures.molecules import BROKEN_STRETCH, longest_stretch
from phicalc.validation.check import Check, Context, Findings, temperature_figure
from phicalc.validation.checks.drift import start
from phicalc.validation.subject import Subject

#: ps.
DURATION = 100.0


def _applies(subject: Subject) -> str:
    return "" if start(subject) is not None else "no structure of its kind is known"


def _hottest(subject: Subject, context: Context) -> float:
    """Return the temperature in K that is claimed."""
    claimed = context.config.highest_temperature or subject.claims.highest_temperature
    return claimed or 1.5 * context.config.temperature


def _run(subject: Subject, context: Context) -> Findings:
    atoms = start(subject)
    hottest = _hottest(subject, context)
    assert atoms is not None  # it applies
    atoms = subject.ready(atoms, fast=True)
    relax(atoms, fmax=0.1, steps=60)
    result = context.dynamics(
        atoms,
        DURATION,
        temperature=hottest,
        thermostat_time=500.0,
        log_interval=50,
        trajectory_interval=round(250 / context.config.timestep),
    )
    trajectory = read_trajectory(ase.io.iread(result.trajectory))
    molecules = find_molecules(trajectory.atoms)
    stretch = longest_stretch(molecules, trajectory.atoms.numbers, trajectory.positions)
    log = read_log(result.log)
    figures = [
        temperature_figure(result, hottest, within=0.1),
        Figure.of("longest bond over the sum of covalent radii", stretch, at_most=BROKEN_STRETCH),
    ]
    curve = Curve.of("model", log["time_ps"][::20], log["temperature_K"][::20])
    plot = Plot(
        f"{atoms.get_chemical_formula()}, {hottest:g} K",
        "time (ps)",
        "temperature (K)",
        (curve,),
    )
    return Findings(figures, [plot], [f"{DURATION:g} ps of {atoms.get_chemical_formula()}"])


CHECK = Check(
    name="stability",
    title="Stability: 100 ps at the highest temperature that is claimed",
    cost=1000.0,
    applies=_applies,
    run=_run,
    quick=False,
)
