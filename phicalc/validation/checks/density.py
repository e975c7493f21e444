"""Liquid water at constant pressure: its density."""

from phicalc.certificate import Curve, Figure, Plot
from phicalc.md import read_log
from phicalc.structures import water_box
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.checks.liquid import N_MOLECULES, applies
from phicalc.validation.subject import Subject

#: ps.
DURATION = 25.0
#: g/cm³: experiment 0.997.
LOWEST, HIGHEST = 0.95, 1.05


def _applies(subject: Subject) -> str:
    if not subject.knows_stress:
        return "its stress was not trained"
    return applies(subject)


def _run(subject: Subject, context: Context) -> Findings:
    atoms = subject.ready(water_box(N_MOLECULES, density=0.997), fast=True)
    result = context.dynamics(
        atoms,
        DURATION,
        ensemble="npt",
        thermostat="berendsen",
        barostat_time=2000.0,
        log_interval=20,
        trajectory_interval=2000,
    )
    log = read_log(result.log)
    half = len(log["density_g_cm3"]) // 2
    figure = Figure.of(
        "density (experiment 0.997)",
        float(log["density_g_cm3"][half:].mean()),
        "g/cm³",
        at_least=LOWEST,
        at_most=HIGHEST,
    )
    curve = Curve.of("model", log["time_ps"][::10], log["density_g_cm3"][::10])
    plot = Plot("1 bar", "time (ps)", "density (g/cm³)", (curve,))
    return Findings(
        [figure], [plot], [f"{N_MOLECULES} molecules, {DURATION:g} ps, NPT (Berendsen)"]
    )


CHECK = Check(
    name="density",
    title="Liquid water at 1 bar: its density",
    cost=600.0,
    applies=_applies,
    run=_run,
    quick=False,
)
