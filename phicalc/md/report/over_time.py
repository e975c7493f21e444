"""Quantities from the log of a run: temperature, pressure, density, drift."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int
from matplotlib.axes import Axes

from phicalc.analysis import Estimate, jackknife
from phicalc.md.log import PRESSURE_COLUMN, VOLUME_COLUMNS
from phicalc.md.report.record import Panel, RecordedRun, Row, Section
from phicalc.pictures import BLUE, GREY, RED, signed, with_error

NO_VOLUME = "a structure with open directions has no volume"
SHORT = "the run is too short to tell how large the error is"


def temperature(run: RecordedRun) -> Section:
    """Temperature and its target."""
    mean = run.average("temperature_K")
    target = None if run.config["ensemble"] == "nve" else run.config["temperature"]
    title = f"temperature: {with_error(*mean[:2])} K"
    draw = _against_time(run, run.log["temperature_K"], "temperature (K)", mean, target)
    return Section([row("temperature", mean, "K")], [Panel(title, draw)])


def pressure(run: RecordedRun) -> Section:
    """Pressure, where it was logged."""
    if PRESSURE_COLUMN not in run.log:
        periodic = bool(run.atoms.pbc.all())
        reason = "not logged: --log-pressure" if periodic else NO_VOLUME
        return not_applicable("pressure", reason)
    mean = run.average(PRESSURE_COLUMN)
    target = run.config["pressure"] / 1000 if run.config["ensemble"] == "npt" else None
    kilobar = Estimate(mean.value / 1000, mean.error / 1000)
    draw = _against_time(
        run, run.log[PRESSURE_COLUMN] / 1000, "pressure (kbar)", kilobar, target, unit="kbar"
    )
    return Section(
        [row("pressure", mean, "bar")], [Panel(f"pressure: {with_error(*kilobar[:2])} kbar", draw)]
    )


def density(run: RecordedRun) -> Section:
    """Mass density; its picture only where the volume moves."""
    column = VOLUME_COLUMNS[1]
    if column not in run.log:
        return not_applicable("density", NO_VOLUME)
    mean = run.average(column)
    if run.config["ensemble"] != "npt":
        return Section([row("density", mean, "g/cm³", "fixed volume")], [])
    title = f"density: {with_error(*mean[:2])} g/cm³"
    draw = _against_time(run, run.log[column], "density (g/cm³)", mean, None)
    return Section([row("density", mean, "g/cm³")], [Panel(title, draw)])


def conserved_energy(run: RecordedRun) -> Section:
    """Drift of what exact integration would keep, in meV per atom and ps."""
    energy = run.log["conserved_energy_eV"]
    change = (energy - energy[0]) / len(run.atoms) * 1000
    late, times = run.late(change), run.late(run.times)
    title, unit = "conserved energy", "meV/atom/ps"
    if len(late) <= 2:
        draw = _against_time(run, change, "change (meV/atom)")
        reason = f"{len(late)} lines of the log are too few"
        return Section([Row("drift of the conserved energy", None, None, unit, reason)],
                       [Panel(title, draw)])  # fmt: skip

    def slope(samples: Int[np.ndarray, " n_chosen"]) -> float:
        return float(np.polyfit(times[samples], late[samples], 1)[0])

    drift = jackknife(slope, len(late))
    lines = _against_time(run, change, "change (meV/atom)")

    def draw_line(axes: Axes) -> None:
        lines(axes)
        fitted = late.mean() + drift.value * (times - times.mean())
        axes.plot(times, fitted, color=RED, linestyle="--", linewidth=1.4)

    error = f" ± {drift.error:.3f}" if np.isfinite(drift.error) else ""
    title += f": drift {signed(drift.value, 3)}{error} {unit}"
    return Section([row("drift of the conserved energy", drift, unit)], [Panel(title, draw_line)])


def potential_energy(run: RecordedRun) -> Section:
    """Potential energy per atom."""
    values = run.log["potential_energy_eV"]
    change = (values - values[0]) / len(run.atoms) * 1000
    return Section([], [Panel("potential energy", _against_time(run, change, "change (meV/atom)"))])


def row(quantity: str, estimate: Estimate, unit: str, note: str = "") -> Row:
    """Put an estimate into the table; NaN errors are none."""
    error = estimate.error if np.isfinite(estimate.error) else None
    if not estimate.converged:
        note = f"{note}; {SHORT}" if note else SHORT
    return Row(quantity, estimate.value, error, unit, note)


def not_applicable(quantity: str, reason: str) -> Section:
    """Say in table and picture why a quantity is missing."""
    return Section([Row(quantity, None, None, "", reason)], [Panel(f"{quantity}\n{reason}", None)])


def _against_time(
    run: RecordedRun,
    values: Float64[np.ndarray, " n_lines"],
    label: str,
    mean: Estimate | None = None,
    target: float | None = None,
    unit: str = "K",
) -> Callable[[Axes], None]:
    """Draw a quantity of the log against time; what is left out of averages is paler."""

    def draw(axes: Axes) -> None:
        start = run.late(run.times)[0]
        axes.plot(run.times, values, color=BLUE, linewidth=1.2)
        if start > run.times[0]:
            axes.axvspan(run.times[0], start, color=GREY, alpha=0.13, linewidth=0)
        axes.set_xlabel("time (ps)")
        axes.set_ylabel(label)
        axes.set_xlim(0, max(run.times[-1], 1e-6))
        axes.ticklabel_format(axis="y", useOffset=False)
        if mean is not None:
            axes.plot([start, run.times[-1]], [mean.value] * 2, color=RED, linewidth=1.4)
        if target is not None:
            axes.axhline(target, color=RED, linestyle="--", linewidth=1.2,
                         label=f"target {target:g} {unit}")  # fmt: skip
            axes.legend(frameon=False, fontsize=9)

    return draw
