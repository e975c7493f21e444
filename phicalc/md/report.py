"""One picture of a run: temperature, conserved energy, pair distribution, charges."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from phicalc.md.folder import CONFIG_FILE, LOG_FILE, REPORT_FILE, trajectory_of
from phicalc.md.log import PRESSURE_COLUMN, read_log
from phicalc.md.rdf import informative_pair, pair_distribution

BLUE, RED, GREY = "#2f6db5", "#c8443a", "#8a8f98"
#: Frames beyond this number are thinned out evenly before the pair distribution is taken.
MOST_FRAMES = 400


class _Run(NamedTuple):
    """What the panels draw."""

    config: dict[str, Any]
    log: dict[str, np.ndarray]
    frames: list[Atoms]
    """Frames of the second half of the run."""
    pair: tuple[str, str] | None

    @property
    def n_atoms(self) -> int:
        return len(self.frames[0])


def make_report(
    folder: str | Path, *, pair: tuple[str, str] | None = None, title: str | None = None
) -> Path:
    """Draw the picture of a finished run into its folder.

    Temperature, conserved energy (with its drift), pair distribution and charges; for runs in which
    the volume moves, density and pressure too. Averages, drift, structure and charges are those of
    the second half of the run, when the start has been forgotten a little.

    Parameters
    ----------
    folder
        Output folder of `run_md`.
    pair
        Elements of the pair distribution; chosen by `informative_pair` if not given.
    title
        Heading; composition and ensemble by default.

    Raises
    ------
    FileNotFoundError
        If the folder does not hold a run.
    """
    folder = Path(folder)
    run = _load(folder, pair)
    panels: list[Callable[[Axes, _Run], None]] = [_temperature, _conserved_energy]
    if run.config["ensemble"] == "npt":
        panels += [_density, _pressure]
    panels += [_pairs, _charges if "charges" in run.frames[0].calc.results else _potential_energy]
    n_columns = len(panels) // 2
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(4.9 * n_columns, 7.2), layout=layout, facecolor="white")
    for axes, panel in zip(figure.subplots(2, n_columns).T.flat, panels, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
        panel(axes, run)
    figure.suptitle(title or _title(run), fontsize=13, fontweight="bold")
    figure.savefig(folder / REPORT_FILE, dpi=150)
    return folder / REPORT_FILE


def _load(folder: Path, pair: tuple[str, str] | None) -> _Run:
    """Read settings, log and the second half of the trajectory."""
    trajectory = trajectory_of(folder)
    for path in (folder / CONFIG_FILE, folder / LOG_FILE, trajectory):
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no run of phicalc: it has no {path.name}")
    frames: list[Atoms] = list(ase.io.iread(trajectory, index=":"))
    frames = frames[len(frames) // 2 :]
    frames = frames[:: max(1, len(frames) // MOST_FRAMES)]
    config = json.loads((folder / CONFIG_FILE).read_text())
    return _Run(config, read_log(folder / LOG_FILE), frames, pair or informative_pair(frames[0]))


def _title(run: _Run) -> str:
    """Say what ran, under which conditions, for how long."""
    config = run.config
    formula, count = run.frames[0].symbols.formula.reduce()
    name = str(formula.convert("hill")).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    conditions = config["ensemble"].upper()
    if config["ensemble"] != "nve":
        conditions += f", {config['temperature']:g} K"
    if config["ensemble"] == "npt":
        conditions += f", {config['pressure']:g} bar"
    return f"{count} {name} ({run.n_atoms} atoms) · {conditions} · {_duration(run.log)}"


def _duration(log: dict[str, np.ndarray]) -> str:
    """Say how long was simulated."""
    picoseconds = log["time_ps"][-1]
    return f"{picoseconds:.3g} ps" if picoseconds >= 1 else f"{picoseconds * 1000:.3g} fs"


def _against_time(axes: Axes, run: _Run, values: np.ndarray, ylabel: str) -> None:
    """Draw a quantity of the log against time."""
    axes.plot(run.log["time_ps"], values, color=BLUE, linewidth=1.2)
    axes.set_xlabel("time (ps)")
    axes.set_ylabel(ylabel)
    axes.set_xlim(0, max(run.log["time_ps"][-1], 1e-6))
    axes.ticklabel_format(axis="y", useOffset=False)


def _temperature(axes: Axes, run: _Run) -> None:
    values = run.log["temperature_K"]
    _against_time(axes, run, values, "temperature (K)")
    late = _second_half(values)
    axes.set_title(
        f"temperature: {late.mean():.0f} ± {late.std():.0f} K (second half)", fontsize=10
    )
    if run.config["ensemble"] != "nve":
        target = run.config["temperature"]
        axes.axhline(target, color=RED, linestyle="--", linewidth=1.2, label=f"target {target:g} K")
        axes.legend(frameon=False, fontsize=9)


def _conserved_energy(axes: Axes, run: _Run) -> None:
    time, energy = run.log["time_ps"], run.log["conserved_energy_eV"]
    change = (energy - energy[0]) / run.n_atoms * 1000
    _against_time(axes, run, change, "change (meV/atom)")
    text = "conserved energy"
    late = _second_half(time)
    if len(late) > 2:
        slope, start = np.polyfit(late, _second_half(change), 1)
        axes.plot(late, start + slope * late, color=RED, linestyle="--", linewidth=1.2)
        text += f": drift {_signed(slope, 3)} meV/atom/ps (second half)"
    axes.set_title(text, fontsize=10)


def _density(axes: Axes, run: _Run) -> None:
    values = run.log["density_g_cm3"]
    _against_time(axes, run, values, "density (g/cm³)")
    axes.set_title(f"density: {_second_half(values).mean():.3f} g/cm³ (second half)", fontsize=10)


def _pressure(axes: Axes, run: _Run) -> None:
    values = run.log[PRESSURE_COLUMN] / 1000
    _against_time(axes, run, values, "pressure (kbar)")
    target = run.config["pressure"] / 1000
    axes.axhline(target, color=RED, linestyle="--", linewidth=1.2)
    mean = _signed(_second_half(values).mean(), 2)
    axes.set_title(f"pressure: {mean} kbar (second half)", fontsize=10)


def _potential_energy(axes: Axes, run: _Run) -> None:
    values = run.log["potential_energy_eV"]
    change = (values - values[0]) / run.n_atoms * 1000
    _against_time(axes, run, change, "change (meV/atom)")
    axes.set_title("potential energy", fontsize=10)


def _pairs(axes: Axes, run: _Run) -> None:
    if run.pair is None:
        axes.set_title("pair distribution: a single atom has none", fontsize=10)
        return
    found = pair_distribution(run.frames, run.pair, bin_width=0.05 if len(run.frames) > 50 else 0.1)
    name = "–".join(run.pair)
    axes.fill_between(found.radii, found.values, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(found.radii, found.values, color=BLUE, linewidth=1.4)
    axes.set_xlabel(f"{name} distance (Å)")
    axes.set_xlim(0, found.radii[-1])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("g(r)" if found.normalised else "density of pairs (1/Å)")
    if found.normalised:
        axes.axhline(1, color=GREY, linestyle=":", linewidth=1.2)
    text = f"{name} pair distribution"
    if found.values.any():
        peak = found.radii[np.argmax(found.values)]
        text += f": highest at {peak:.2f} Å"
    axes.set_title(text, fontsize=10)


def _charges(axes: Axes, run: _Run) -> None:
    charges = np.array([frame.calc.results["charges"] for frame in run.frames])
    symbols = np.array(run.frames[0].get_chemical_symbols())
    low, high = charges.min(), charges.max()
    bins = np.linspace(low - 0.02, high + 0.02, 80)
    summary = []
    for symbol in sorted(set(symbols), key=atomic_numbers.__getitem__):
        values = charges[:, symbols == symbol].ravel()
        counts, _ = np.histogram(values, bins, density=True)
        color = _visible(jmol_colors[atomic_numbers[symbol]])
        axes.stairs(counts, bins, fill=True, color=color, alpha=0.75, label=symbol)
        summary.append(f"{symbol} {_signed(values.mean(), 2)}")
    axes.set_xlabel("charge (e)")
    axes.set_ylabel("density (1/e)")
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("mean charges: " + ", ".join(summary) + " e", fontsize=10)


def _visible(color: np.ndarray) -> tuple[float, float, float]:
    """Darken colours (white hydrogen) that would vanish on white paper."""
    brightness = float(np.dot(color, (0.3, 0.6, 0.1)))
    red, green, blue = (channel * min(1.0, 0.65 / max(brightness, 1e-6)) for channel in color)
    return red, green, blue


def _signed(value: float, digits: int) -> str:
    """Write a number with its sign; the minus of typography, as on the axes."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _second_half(values: np.ndarray) -> np.ndarray:
    return values[len(values) // 2 :]
