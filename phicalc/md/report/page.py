"""Pictures and tables of a run: a short picture, and the whole analysis on one page."""

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phicalc.md.folder import REPORT_FILE, trajectory_of
from phicalc.md.report import from_trajectory, over_time
from phicalc.md.report.record import Panel, RecordedRun, Row, Section, read_run
from phicalc.pages import page, table
from phicalc.pictures import GREY, new_figure, with_error
from phicalc.structures import read_structures, write_text
from phicalc.view import view_part
from phicalc.view.page import MOST_FRAMES, spread

#: Files of an analysis, inside the folder of the run.
TABLE_FILE, PICTURE_FILE, PAGE_FILE = "analysis.json", "analysis.png", "analysis.html"

#: Every quantity of the whole analysis, in the order of the page.
QUANTITIES: tuple[Callable[[RecordedRun], Section], ...] = (
    over_time.temperature,
    over_time.conserved_energy,
    over_time.pressure,
    over_time.density,
    from_trajectory.pairs,
    from_trajectory.charges,
    from_trajectory.motion,
    from_trajectory.dipole,
    from_trajectory.vibrations,
)


class Analysis(NamedTuple):
    """Results of `analyse_run`, and its files."""

    rows: list[Row]
    """The table."""
    table: Path
    """JSON."""
    picture: Path
    """PNG."""
    page: Path
    """One HTML file with both, and the trajectory with its charges in 3D."""


def make_report(
    folder: str | Path, *, pair: tuple[str, str] | None = None, title: str | None = None
) -> Path:
    """Draw the short picture of a finished run into its folder, and return the file.

    Temperature, conserved energy (with its drift), pair distribution and charges; for runs in which
    the volume moves, density and pressure too. Averages, drift, structure and charges are those of
    the second half of the run.

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
    run = read_run(folder, discard=0.5)
    sections = [over_time.temperature(run), over_time.conserved_energy(run)]
    if run.config["ensemble"] == "npt":
        sections += [over_time.density(run), over_time.pressure(run)]
    sections.append(from_trajectory.leading_pair(run, pair))
    has_charges = run.trajectory.charges is not None
    sections.append(
        from_trajectory.charges(run) if has_charges else over_time.potential_energy(run)
    )
    panels = [panel for section in sections for panel in section.panels]
    n_columns = len(panels) // 2
    down_columns = [panels[2 * (i % n_columns) + i // n_columns] for i in range(len(panels))]
    figure = _draw(down_columns, n_columns, title or run.title)
    figure.savefig(Path(folder) / REPORT_FILE, dpi=150)
    return Path(folder) / REPORT_FILE


def analyse_run(
    folder: str | Path,
    *,
    output: str | Path | None = None,
    discard: float = 0.2,
    stride: int = 1,
) -> Analysis:
    """Return averages, structure, dynamics and spectra of a run, and write them as page and table.

    Temperature, pressure, density, drift of the conserved energy, pair distributions with
    coordination numbers, charges, diffusion coefficients, dipole moment, dielectric constant,
    vibrational density of states and infrared spectrum. Quantities that do not apply say why.
    Errors come from blocks (`phicalc.analysis.block_average`, `jackknife`).

    Parameters
    ----------
    folder
        Output folder of `run_md`.
    output
        Folder for ``analysis.json``, ``.png`` and ``.html``; that of the run by default.
    discard
        Fraction of the run to leave out at its start, before it has reached equilibrium.
    stride
        Take every so many frames, which saves memory in long runs.

    Raises
    ------
    FileNotFoundError
        If the folder does not hold a run.
    ValueError
        For a senseless `discard` or `stride`, or a run without frames at equal intervals.
    """
    run = read_run(folder, discard=discard, stride=stride)
    sections = [quantity(run) for quantity in QUANTITIES]
    rows = [line for section in sections for line in section.rows]
    panels = [panel for section in sections for panel in section.panels]
    output = Path(folder if output is None else output)
    output.mkdir(parents=True, exist_ok=True)
    found = Analysis(rows, output / TABLE_FILE, output / PICTURE_FILE, output / PAGE_FILE)
    settings = {"discard": discard, "stride": stride, "frames": run.trajectory.n_frames}
    record = {"title": run.title, **settings, "quantities": [line._asdict() for line in rows]}
    write_text(found.table, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    start = run.late(run.times)[0]
    heading = f"{run.title}\naverages from {start:.3g} ps on"
    _draw(panels, 3, heading).savefig(found.picture, dpi=130)
    view = _view(Path(folder), run.trajectory.n_frames, stride)
    write_text(found.page, _page(run.title, rows, found.picture, view))
    return found


def _draw(panels: list[Panel], n_columns: int, title: str) -> Figure:
    """Draw panels row by row; what does not apply is said where its picture would be."""
    figure, grid = new_figure(math.ceil(len(panels) / n_columns), n_columns)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid, panels, strict=False):
        if panel.draw is None:
            _say(axes, panel.title)
            continue
        panel.draw(axes)
        axes.set_title(panel.title, fontsize=10)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    return figure


def _say(axes: Axes, text: str) -> None:
    """Write why a panel is empty."""
    name, _, reason = text.partition("\n")
    axes.set_axis_off()
    axes.set_title(f"{name}: not applicable", fontsize=10, color=GREY)
    axes.text(0.5, 0.55, reason, transform=axes.transAxes, ha="center", va="center", wrap=True,
              color=GREY, fontsize=10)  # fmt: skip


_STYLE = (
    "td:nth-child(2){text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
    "td:last-child{color:#6a7078}"
)


def _view(folder: Path, n_frames: int, stride: int) -> str:
    """Return the 3D view of the whole run, of whose analyzed part so many frames are known."""
    stride *= max(1, n_frames // MOST_FRAMES)
    return view_part(spread(read_structures(trajectory_of(folder), f"::{stride}"), MOST_FRAMES))


def _page(title: str, rows: list[Row], picture: Path, view: str) -> str:
    """Return a page with the table, the picture and the view in it."""
    image = base64.b64encode(picture.read_bytes()).decode()
    body = table(map(cells, rows), ("quantity", "value", "unit", "")) + (
        f'<img alt="pictures of the run" src="data:image/png;base64,{image}">\n{view}'
    )
    return page(title, body, _STYLE)


def cells(line: Row) -> tuple[str, str, str, str]:
    """Texts of a line of the table: quantity, value with error, unit, note."""
    if line.value is None:
        return line.quantity, "–", "", f"not applicable: {line.note}"
    error = math.nan if line.error is None else line.error
    return line.quantity, with_error(line.value, error), line.unit, line.note
