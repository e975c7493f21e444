"""Inspection of files of data, as text, and as a page with pictures."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from phicalc.data.config import KeysConfig
from phicalc.data.files import find_data_file, read_frames
from phicalc.data.inspection import CHARGE_SUM, OVERLAP, Inspection, inspect_frames
from phicalc.data.pairs import FAR, NEAR
from phicalc.pages import page, table
from phicalc.state import write_atomically

#: Frames that are named for each finding on the terminal, and on the page.
_NAMED, _LISTED = 3, 50


def inspect_files(
    paths: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    keys: KeysConfig = KeysConfig(),  # noqa: B008 - frozen
    report: Callable[[str], None] = print,
) -> Inspection:
    """Check labelled structures in files together, and tell what was found.

    Parameters
    ----------
    paths
        Extended XYZ files (see `find_data_file` for relative names).
    output
        Folder for ``index.html`` and ``data.png``; None writes nothing.
    keys
        Names of the labels in the data.
    report
        Receives lines for people.

    Raises
    ------
    FileNotFoundError, ValueError
        For files that cannot be read, and labels that are not finite.
    """
    frames = [frame for name in paths for frame in read_frames(find_data_file(name), keys)]
    found = inspect_frames(frames)
    width = max(map(len, found.table))
    for name, text in found.table.items():
        report(f"{name:<{width}}  {text}")
    for finding in found.findings:
        named = "; ".join(finding.origins[:_NAMED])
        more = f"; … {len(finding.origins) - _NAMED} more" if len(finding.origins) > _NAMED else ""
        kind = "WRONG? " if finding.is_wrong else "note:  "
        report(f"{kind}{finding.text}{f': {named}{more}' if named else ''}")
    if found.is_sound:
        report("nothing looks wrong")
    if output is not None:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        draw(found, folder / "data.png")
        title = ", ".join(Path(path).name for path in paths)
        write_atomically(folder / "index.html", _page(found, title).encode())
        report(f"wrote {folder / 'index.html'} and {folder / 'data.png'}")
    return found


def _page(found: Inspection, title: str) -> str:
    """Return the page."""
    items = "\n".join(
        f'<li class="{"wrong" if finding.is_wrong else "note"}">{escape(finding.text)}'
        f"<small>{escape('; '.join(finding.origins[:_LISTED]))}</small></li>"
        for finding in found.findings
    )
    body = (
        f"{table(found.table.items())}<h2>Findings</h2>\n"
        f"<ul>\n{items or '<li>Nothing looks wrong.</li>'}\n</ul>\n"
        '<img src="data.png" alt="energies, forces, charges, distances and units">\n'
    )
    return page(title, body, ".wrong{color:#b00}")


def draw(found: Inspection, path: Path) -> Path:
    """Draw energies, forces, charges, distances and the comparison of labels, as a PNG file."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).ravel()
    frames = np.arange(len(found.series["energy"]))
    _dots(axes[0], frames, found.series["energy"], "energy less those of the elements (eV/atom)")
    _dots(axes[1], frames, found.series["force"], "largest force (eV/Å)")
    axes[1].set_yscale("log")
    _dots(axes[2], frames, found.series["charge_sum"], "Σ charges − total charge (e)")
    for limit in (-CHARGE_SUM, CHARGE_SUM):
        axes[2].axhline(limit, color="tab:red", linewidth=0.8)
    _dots(axes[3], frames, found.series["closeness"], "smallest distance / Σ covalent radii")
    axes[3].axhline(OVERLAP, color="tab:red", linewidth=0.8)
    _histogram(axes[4], found)
    _work(axes[5], found)
    figure.savefig(path, dpi=120)
    return path


def _dots(
    axis: Axes, x: Int[np.ndarray, " n_frames"], y: Float64[np.ndarray, " n_frames"], label: str
) -> None:
    """Draw a number of each frame in the order of the files."""
    axis.plot(x, y, ".", markersize=3)
    axis.set_xlabel("frame")
    axis.set_title(label, fontsize=10)
    if not np.isfinite(y).any():
        axis.text(0.5, 0.5, "no labels", ha="center", transform=axis.transAxes)


def _histogram(axis: Axes, found: Inspection) -> None:
    """How much frames differ from those most like them."""
    distances = [max(pair.distance, 1e-6) for pair in found.pairs]
    if distances:
        bins = np.geomspace(min(*distances, NEAR / 2), max(*distances, 1.0), 50)
        axis.hist(distances, bins=bins.tolist())
        axis.set_xscale("log")
        axis.axvline(NEAR, color="tab:red", linewidth=0.8)
    axis.set_title("difference of similar frames (rms, Å)", fontsize=10)
    axis.set_ylabel("pairs")


def _work(axis: Axes, found: Inspection) -> None:
    """Differences of energies over the work that forces and stresses expect."""
    for strained, label in ((False, "same cell"), (True, "strained cell")):
        rows = np.array(
            [
                (pair.force_work + pair.stress_work, pair.energy)
                for pair in found.pairs
                if NEAR < pair.distance < FAR and bool(pair.stress_work) == strained
            ]
        ).reshape(-1, 2)
        rows = rows[np.isfinite(rows).all(axis=1)]
        if len(rows):
            axis.plot(rows[:, 0], rows[:, 1], ".", markersize=3, label=label)
            ends = [rows.min(), rows.max()]
            axis.plot(ends, ends, color="black", linewidth=0.8)
            axis.legend(fontsize=8)
    axis.set_title("energies of similar frames (eV)", fontsize=10)
    axis.set_xlabel("difference expected from forces and stress")
    axis.set_ylabel("difference of the labels")
