"""Pictures of a training run: errors by epoch, and predictions against labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: Label → (title, factor from eV, Å and e, unit) of parity plots.
_PARITY = {
    "energy": ("Energy per atom, less its composition's", 1e3, "meV"),
    "forces": ("Force components", 1.0, "eV/Å"),
    "charges": ("Charges", 1.0, "e"),
}
#: Label → (title, unit) of the curves.
_CURVES = {
    "energy": ("Energy", "meV/atom"),
    "forces": ("Forces", "meV/Å"),
    "stress": ("Stress", "meV/Å³"),
    "charges": ("Charges", "me"),
    "dipole": ("Dipole", "me·Å"),
    "polarizability": ("Polarizability", "me·Å²/V/atom"),
    "born_charges": ("Born charges", "e"),
}
_POINTS_DRAWN = 20_000


def plot_parity(
    parity: dict[str, tuple[Float64[np.ndarray, "_"], Float64[np.ndarray, "_"]]], path: Path
) -> Path:
    """Draw predictions against labels, one panel for each quantity, as a PNG file.

    Parameters
    ----------
    parity
        Labels and predictions of ``energy`` (eV/atom), ``forces`` (eV/Å) and ``charges`` (e).
    path
        The file.
    """
    panels = [name for name in _PARITY if name in parity]
    figure, axes = _figure(max(1, len(panels)), 4.2)
    if not panels:
        axes[0].set_title("no energies, forces or charges to compare with", fontsize=10)
        return _save(figure, path)
    for axis, name in zip(axes, panels, strict=True):
        title, factor, unit = _PARITY[name]
        label, predicted = (factor * values for values in parity[name])
        rmse = float(np.sqrt(np.mean((predicted - label) ** 2)))
        stride = max(1, len(label) // _POINTS_DRAWN)  # thinned evenly; the RMSE is of all
        axis.plot(label[::stride], predicted[::stride], ".", markersize=2, alpha=0.4)
        ends = [min(label.min(), predicted.min()), max(label.max(), predicted.max())]
        axis.plot(ends, ends, color="black", linewidth=0.8)
        axis.set_xlabel(f"reference ({unit})")
        axis.set_ylabel(f"model ({unit})")
        axis.set_title(f"{title}\nRMSE {rmse:.3g} {unit}", fontsize=10)
        axis.set_aspect("equal", adjustable="datalim")
    return _save(figure, path)


def plot_deviations(
    compared: Mapping[str, tuple[Float64[np.ndarray, " _"], Float64[np.ndarray, " _"]]],
    path: Path,
    columns: int | None = None,
) -> Path:
    """Draw errors against standard deviations, one panel for each quantity, as a PNG file.

    Parameters
    ----------
    compared
        Sizes of errors and standard deviations by title, both in the unit that the title names.
    path
        The file.
    columns
        Panels in a row; by default all of them.
    """
    figure, axes = _figure(max(1, len(compared)), 4.2, columns)
    for axis, (title, (errors, deviations)) in zip(axes, compared.items(), strict=False):
        stride = max(1, len(errors) // _POINTS_DRAWN)
        axis.loglog(deviations[::stride], errors[::stride], ".", markersize=2, alpha=0.4)
        order = np.argsort(deviations)
        for chosen in np.array_split(order, min(10, max(1, len(order) // 20))):
            if len(chosen):
                means = [np.sqrt(np.mean(x[chosen] ** 2)) for x in (deviations, errors)]
                axis.plot(*means, "o", color="tab:orange", markersize=5)
        if len(order):
            ends = deviations[order[[0, -1]]]
            for factor, style in ((1, "-"), (2, ":")):
                axis.plot(ends, factor * ends, style, color="black", linewidth=0.8)
        axis.set_xlabel("standard deviation σ")
        axis.set_ylabel("size of the error")
        axis.set_title(f"{title}\nline σ, dotted 2σ; circles: root mean squares", fontsize=10)
    return _save(figure, path)


def plot_curves(history: Sequence[dict[str, Any]], path: Path) -> Path:
    """Draw loss and errors by epoch, training and validation, as a PNG file.

    Parameters
    ----------
    history
        Rows of ``metrics.jsonl``.
    path
        The file.
    """
    found = {key for row in history for key in row}
    panels = [name for name in _CURVES if f"train_{name}_rmse" in found]
    figure, axes = _figure(len(panels) + 1, 3.6)
    _curve(axes[0], history, "loss")
    axes[0].set_title("Loss", fontsize=10)
    rate = axes[0].twinx()
    rate.plot([row["epoch"] for row in history], [row["lr"] for row in history], ":", color="gray")
    rate.set_yscale("log")
    rate.set_ylabel("learning rate (dotted)", fontsize=8)
    for axis, name in zip(axes[1:], panels, strict=True):
        title, unit = _CURVES[name]
        _curve(axis, history, f"{name}_rmse")
        axis.set_title(f"{title}, RMSE ({unit})", fontsize=10)
    return _save(figure, path)


def _curve(axis: Axes, history: Sequence[dict[str, Any]], key: str) -> None:
    """Draw one quantity of training and validation."""
    for role, color in (("train", "tab:blue"), ("valid", "tab:orange")):
        rows = [(r["epoch"], r[f"{role}_{key}"]) for r in history if f"{role}_{key}" in r]
        if rows:
            axis.plot(*zip(*rows, strict=True), color=color, label=role, linewidth=1)
    axis.set_yscale("log")
    axis.set_xlabel("epoch")
    axis.legend(fontsize=8)


def _figure(n_panels: int, width: float, columns: int | None = None) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels in one row, or in as many as it takes, drawn without a display."""
    columns = columns or n_panels
    rows = -(-n_panels // columns)
    figure = Figure(figsize=(width * columns, 3.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=150)
    return path
