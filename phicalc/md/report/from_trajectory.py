"""Quantities from the trajectory of a run: structure, charges, diffusion, dipole, spectra."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64
from matplotlib.axes import Axes

from phicalc.analysis import (
    PairDistribution,
    Spectrum,
    block_average,
    dielectric_constant,
    diffusion,
    informative_pair,
    informative_pairs,
    infrared_spectrum,
    itinerant_dipole,
    pair_distributions,
    vibrational_density,
)
from phicalc.md.report.over_time import not_applicable, row
from phicalc.md.report.record import Panel, RecordedRun, Row, Section
from phicalc.pictures import BLUE, GREY, RED, element_color, signed, with_error

#: Frames beyond this number are thinned out evenly before pair distributions are taken.
MOST_FRAMES = 400
#: g(r) is cut at this multiple of the highest value outside molecules.
CLIPPED = 1.35
#: Part of a spectrum's integral that its picture must hold.
SHOWN = 0.985


def pairs(run: RecordedRun, chosen: list[tuple[str, str]] | None = None) -> Section:
    """Pair distributions with the neighbours in their first shells."""
    chosen = informative_pairs(run.atoms) if chosen is None else chosen
    if not chosen:
        return not_applicable("pair distribution", "a single atom has none")
    frames = run.trajectory.frames(MOST_FRAMES)
    width = 0.05 if len(frames) > 50 else 0.1
    section = Section([], [])
    for found in pair_distributions(frames, chosen, bin_width=width):
        name = "–".join(found.pair)
        shell = found.first_shell()
        title = f"{name} pair distribution"
        if shell is None:
            note = "no first shell can be told apart"
            section.rows.append(Row(f"{name} first peak", None, None, "Å", note))
        else:
            peak, minimum, neighbours = shell
            title += f": peak {peak:.2f} Å, {neighbours:.2g} within {minimum:.2f} Å"
            height = int(np.argmin(np.abs(found.radii - peak)))
            error = float(found.error[height])
            note = f"height {with_error(found.values[height], error)}; bins of {width:g} Å"
            section.rows.append(Row(f"{name} first peak", peak, width / 2, "Å", note))
            note = f"{found.pair[1]} around {found.pair[0]}, up to {minimum:.2f} Å"
            section.rows.append(Row(f"{name} coordination", neighbours, None, "", note))
        section.panels.append(Panel(title, _draw_pairs(found)))
    return section


def leading_pair(run: RecordedRun, pair: tuple[str, str] | None) -> Section:
    """Draw the one pair distribution of a short report."""
    pair = pair or informative_pair(run.atoms)
    return pairs(run, [] if pair is None else [pair])


def _draw_pairs(found: PairDistribution) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        low, high = found.values - found.error, found.values + found.error
        axes.fill_between(found.radii, found.values, color=BLUE, alpha=0.12, linewidth=0)
        axes.fill_between(found.radii, low, high, color=BLUE, alpha=0.35, linewidth=0)
        axes.plot(found.radii, found.values, color=BLUE, linewidth=1.4)
        axes.set_xlabel(f"{'–'.join(found.pair)} distance (Å)")
        axes.set_xlim(0, found.radii[-1])
        axes.set_ylabel("g(r)" if found.normalized else "density of pairs (1/Å)")
        axes.set_ylim(0, _top(found))
        if found.normalized:
            axes.axhline(1, color=GREY, linestyle=":", linewidth=1.2)
        running = axes.twinx()
        running.spines[["top"]].set_visible(False)
        running.plot(found.radii, found.neighbors, color=RED, linewidth=1.1, alpha=0.8)
        running.set_ylabel("neighbours within r", color=RED)
        shell = found.first_shell()
        top = max(2.5 * shell[2], 4.0) if shell else found.neighbors[-1]
        running.set_ylim(0, max(min(top, 1.05 * found.neighbors[-1]), 1e-3))
        running.tick_params(axis="y", colors=RED)

    return draw


def _top(found: PairDistribution) -> float | None:
    """Upper end of the axis: bonds inside molecules stand ten times higher than all else."""
    highest = float(found.values.max(initial=0.0))
    shell = found.first_shell()
    if shell is None or not found.normalized:
        return None
    beyond = found.values[found.radii > shell[1]].max(initial=0.0)
    return CLIPPED * float(beyond) if highest > 4 * beyond > 0 else None


def charges(run: RecordedRun) -> Section:
    """Distribution of the charges of each element."""
    found = run.trajectory.charges
    if found is None:
        return not_applicable("charges", "the model has none, or they were not saved")
    section, summary, values = Section([], []), [], {}
    for symbol in run.trajectory.elements:
        values[symbol] = found[:, run.trajectory.symbols == symbol]
        mean = block_average(values[symbol].mean(axis=1))
        spread = f"standard deviation {values[symbol].std():.4f} e"
        section.rows.append(row(f"charge of {symbol}", mean, "e", spread))
        summary.append(f"{symbol} {signed(mean.value, 2)}")
    title = "mean charges: " + ", ".join(summary) + " e"

    def draw(axes: Axes) -> None:
        bins = np.linspace(found.min() - 0.02, found.max() + 0.02, 80)
        for symbol, of_element in values.items():
            counts, _ = np.histogram(of_element.ravel(), bins, density=True)
            color = element_color(symbol)
            axes.stairs(counts, bins, fill=True, color=color, alpha=0.75, label=symbol)
        axes.set_xlabel("charge (e)")
        axes.set_ylabel("density (1/e)")
        axes.legend(frameon=False, fontsize=9)

    section.panels.append(Panel(title, draw))
    return section


def motion(run: RecordedRun) -> Section:
    """Mean squared displacements and diffusion coefficients."""
    try:
        found = diffusion(run.trajectory)
    except ValueError as error:
        return not_applicable("diffusion", str(error))
    unit, rows = "1e-9 m²/s", []
    for element in found:
        note = "of the box: no correction for its finite size (Yeh–Hummer: needs the viscosity)"
        if not element.diffusive:
            note = (
                f"NOT diffusive yet: {element.displacement[-1]:.2g} Å² within blocks of the run, "
                f"growing as t^{element.exponent:.2f}; a longer run is needed"
            )
        rows.append(
            row(f"diffusion coefficient of {element.symbol}", element.coefficient, unit, note)
        )

    def draw(axes: Axes) -> None:
        for element in found:
            color, picoseconds = element_color(element.symbol), element.lags / 1000
            low, high = (element.displacement + sign * element.error for sign in (-1, 1))
            axes.fill_between(picoseconds, low, high, color=color, alpha=0.25, linewidth=0)
            label = f"{element.symbol}: D = {with_error(*element.coefficient[:2])}"
            axes.plot(picoseconds, element.displacement, color=color, linewidth=1.6, label=label)
        axes.set_xlabel("time (ps)")
        axes.set_ylabel("mean squared displacement (Å²)")
        axes.set_xlim(0, found[0].lags[-1] / 1000)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=9, title=f"D in {unit}", title_fontsize=9)

    return Section(rows, [Panel("diffusion (not corrected for the size of the box)", draw)])


def dipole(run: RecordedRun) -> Section:
    """Dipole moment, dielectric constant and infrared spectrum."""
    try:
        moments = itinerant_dipole(run.trajectory)
    except ValueError as error:
        parts = ("dipole moment", "dielectric constant", "infrared spectrum")
        sections = [not_applicable(part, str(error)) for part in parts]
    else:
        sections = [_moment(run, moments), _dielectric(run, moments), _infrared(run, moments)]
    return Section(
        [line for section in sections for line in section.rows],
        [panel for section in sections for panel in section.panels],
    )


def _moment(run: RecordedRun, moments: Float[np.ndarray, "n_frames 3"]) -> Section:
    shown = moments - moments.mean(axis=0) if run.atoms.pbc.any() else moments
    size = block_average(np.linalg.norm(shown, axis=1))
    label = "dipole, less its mean (e Å)" if run.atoms.pbc.any() else "dipole (e Å)"
    note = "size of its fluctuation: the origin has no meaning in periodic structures"
    mean = row("dipole moment", size, "e Å", note if run.atoms.pbc.any() else "")

    def draw(axes: Axes) -> None:
        picoseconds = _picoseconds(run)
        for axis, color in enumerate((BLUE, RED, GREY)):
            axes.plot(picoseconds, shown[:, axis], color=color, linewidth=1.1, label="xyz"[axis])
        axes.set_xlabel("time (ps)")
        axes.set_ylabel(label)
        axes.set_xlim(picoseconds[0], max(picoseconds[-1], picoseconds[0] + 1e-6))
        axes.legend(frameon=False, fontsize=9, ncols=3)

    return Section([mean], [Panel(f"dipole: mean size {with_error(*size[:2])} e Å", draw)])


def _dielectric(run: RecordedRun, moments: Float[np.ndarray, "n_frames 3"]) -> Section:
    name = "dielectric constant"
    try:
        found = dielectric_constant(run.trajectory, moments, run.temperature)
    except ValueError as error:
        return not_applicable(name, str(error))
    note = "1 + fluctuation of the dipole; needs tens of its correlation times, often nanoseconds"

    def draw(axes: Axes) -> None:
        ends = np.unique(np.linspace(10, len(moments), 60).astype(int))
        fluctuation = np.array([moments[:end].var(axis=0).sum() for end in ends])
        values = 1 + (found.value - 1) * fluctuation / max(fluctuation[-1], 1e-300)
        picoseconds = _picoseconds(run)
        axes.plot(picoseconds[ends - 1], values, color=BLUE, linewidth=1.6)
        if np.isfinite(found.error):
            low, high = found.value - found.error, found.value + found.error
            axes.axhspan(low, high, color=BLUE, alpha=0.15, linewidth=0)
        axes.set_xlabel("up to time (ps)")
        axes.set_ylabel("dielectric constant")
        axes.set_ylim(bottom=0)

    title = f"{name}: {with_error(*found[:2])} (running average)"
    return Section([row(name, found, "", note)], [Panel(title, draw)])


def _infrared(run: RecordedRun, moments: Float[np.ndarray, "n_frames 3"]) -> Section:
    name = "infrared spectrum"
    try:
        found = infrared_spectrum(run.trajectory, moments, run.temperature)
    except ValueError as error:
        return not_applicable(name, str(error))
    periodic = bool(run.atoms.pbc.all())
    label = "α n (cm⁻¹)" if periodic else "absorption (km/mol per cm⁻¹)"
    beyond = found.wavenumbers > 50
    peak = found.wavenumbers[beyond][np.argmax(found.values[beyond])]
    note = "classical nuclei; charge flowing between molecules is neglected"
    line = Row("strongest infrared line", float(peak), _resolution(found), "cm⁻¹", note)
    return Section([line], [Panel(f"{name}: strongest at {peak:.0f} cm⁻¹",
                                  _draw_spectra({"": found}, label))])  # fmt: skip


def vibrations(run: RecordedRun) -> Section:
    """Vibrational density of states from the velocities."""
    name = "vibrational density of states"
    try:
        found = vibrational_density(run.trajectory)
    except ValueError as error:
        return not_applicable(name, str(error))
    rows = []
    for symbol, spectrum in found.items():
        beyond = spectrum.wavenumbers > 50
        peak = spectrum.wavenumbers[beyond][np.argmax(spectrum.values[beyond])]
        width = _resolution(spectrum)
        rows.append(Row(f"strongest vibration of {symbol}", float(peak), width, "cm⁻¹"))
    return Section(rows, [Panel(name, _draw_spectra(found, "density (1/cm⁻¹)"))])


def _resolution(spectrum: Spectrum) -> float:
    """Spacing of a spectrum in cm⁻¹."""
    return float(spectrum.wavenumbers[1] - spectrum.wavenumbers[0])


def _draw_spectra(spectra: dict[str, Spectrum], label: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for symbol, found in spectra.items():
            color = element_color(symbol) if symbol else BLUE
            low, high = found.values - found.error, found.values + found.error
            axes.fill_between(found.wavenumbers, np.maximum(low, 0), high, color=color,
                              alpha=0.25, linewidth=0)  # fmt: skip
            axes.plot(found.wavenumbers, found.values, color=color, linewidth=1.3, label=symbol)
        first = next(iter(spectra.values()))
        total = np.sum([found.values for found in spectra.values()], axis=0)
        seen = first.wavenumbers[np.cumsum(total) < SHOWN * total.sum()]
        axes.set_xlim(0, 1.1 * max(seen[-1] if len(seen) else 0.0, 100.0))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("wavenumber (cm⁻¹)")
        axes.set_ylabel(label)
        if len(spectra) > 1:
            axes.legend(frameon=False, fontsize=9)

    return draw


def _picoseconds(run: RecordedRun) -> Float64[np.ndarray, " n_frames"]:
    """Return the times of the frames, in ps since the start of the run."""
    trajectory = run.trajectory
    return (trajectory.start + np.arange(trajectory.n_frames) * trajectory.interval) / 1000
