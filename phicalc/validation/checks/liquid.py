"""Liquid water at constant volume: pair distribution and diffusion."""

import ase.io

from phicalc.analysis import diffusion, pair_distribution, read_trajectory
from phicalc.certificate import Curve, Figure, Plot
from phicalc.structures import water_box
from phicalc.validation.check import Check, Context, Findings, temperature_figure
from phicalc.validation.structures import is_water
from phicalc.validation.subject import Subject

#: ps, and molecules in the box.
DURATION, N_MOLECULES = 50.0, 32
NOT_A_LIQUID = "it was not made for liquid water"
#: Part of the run that is left out.
EQUILIBRATION = 0.2


def applies(subject: Subject) -> str:
    """Return why a subject does not know liquid water; empty if it does."""
    return "" if is_water(subject) else NOT_A_LIQUID


def _run(subject: Subject, context: Context) -> Findings:
    atoms = subject.ready(water_box(N_MOLECULES, density=0.997), fast=True)
    result = context.dynamics(
        atoms,
        DURATION,
        thermostat="bussi",
        thermostat_time=200.0,
        log_interval=20,
        trajectory_interval=round(50 / context.config.timestep),
    )
    trajectory = read_trajectory(ase.io.iread(result.trajectory)).late(EQUILIBRATION)
    oxygen = pair_distribution(trajectory.frames(400), ("O", "O"))
    shell = oxygen.first_shell()
    motion = next(each for each in diffusion(trajectory) if each.symbol == "O")
    nan = float("nan")
    radius, _, neighbors = (nan, nan, nan) if shell is None else shell
    figures = [
        temperature_figure(result, context.config.temperature, within=0.03),
        Figure.of("first peak of g(O–O) (experiment 2.80)", radius, "Å", at_least=2.7, at_most=2.9),
        Figure.of(
            "its height (experiment 2.57)", float(oxygen.values.max()), at_least=2.0, at_most=3.3
        ),
        Figure.of("neighbors of O (experiment 4.3 to 4.7)", neighbors, at_least=3.6, at_most=5.6),
        Figure.of(
            "diffusion of O in this box (experiment 2.3)",
            motion.coefficient.value,
            "1e-9 m²/s",
            at_least=0.7,
            at_most=4.0,
        ),
    ]
    plots = [
        Plot("g(O–O)", "distance (Å)", "g", (Curve.of("model", oxygen.radii, oxygen.values),)),
        Plot(
            "mean squared displacement of O",
            "time (ps)",
            "Å²",
            (Curve.of("model", motion.lags / 1000, motion.displacement),),
        ),
    ]
    return Findings(figures, plots, [f"{N_MOLECULES} molecules, {DURATION:g} ps, NVT"])


CHECK = Check(
    name="liquid",
    title="Liquid water at constant volume: structure and diffusion",
    cost=900.0,
    applies=applies,
    run=_run,
    quick=False,
)
