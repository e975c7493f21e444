"""Files of a run, read for pictures and tables, and the parts that those are made of."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from jaxtyping import Float64
from matplotlib.axes import Axes

from phicalc.analysis import Estimate, Trajectory, block_average, read_trajectory
from phicalc.md.folder import CONFIG_FILE, LOG_FILE, trajectory_of
from phicalc.md.log import read_log
from phicalc.structures import formula_of


class Row(NamedTuple):
    """A line of the table; without a value, `note` says why there is none."""

    quantity: str
    value: float | None
    error: float | None
    """Standard error; None where it cannot be told."""
    unit: str
    note: str = ""


class Panel(NamedTuple):
    """A picture; without `draw`, `title` says why there is none."""

    title: str
    draw: Callable[[Axes], None] | None


class Section(NamedTuple):
    """Everything about one quantity."""

    rows: list[Row]
    panels: list[Panel]


class RecordedRun(NamedTuple):
    """Settings, log and trajectory of a run."""

    config: dict[str, Any]
    log: dict[str, Float64[np.ndarray, " n_lines"]]
    trajectory: Trajectory
    """Without the part that is discarded."""
    discard: float
    """Fraction of the run left out at its start, before it has reached equilibrium."""

    @property
    def atoms(self) -> Atoms:
        """The first frame."""
        return self.trajectory.atoms

    @property
    def times(self) -> Float64[np.ndarray, " n_lines"]:
        """Times of the lines of the log, in ps."""
        return self.log["time_ps"]

    @property
    def temperature(self) -> float:
        """Mean temperature in K after the start."""
        return float(self.late(self.log["temperature_K"]).mean())

    @property
    def title(self) -> str:
        """Composition, conditions and length of the run."""
        conditions = self.config["ensemble"].upper()
        if self.config["ensemble"] != "nve":
            conditions += f", {self.config['temperature']:g} K"
        if self.config["ensemble"] == "npt":
            conditions += f", {self.config['pressure']:g} bar"
        picoseconds = self.times[-1]
        long = picoseconds >= 1
        duration = f"{picoseconds:.3g} ps" if long else f"{picoseconds * 1000:.3g} fs"
        return f"{formula_of(self.atoms)} ({len(self.atoms)} atoms) · {conditions} · {duration}"

    def late(self, values: Float64[np.ndarray, " n_lines"]) -> Float64[np.ndarray, " n_late"]:
        """Return values of the log without the start."""
        return values[int(self.discard * len(values)) :]

    def average(self, column: str) -> Estimate:
        """Average of a column of the log without the start."""
        return block_average(self.late(self.log[column]))


def read_run(folder: str | Path, *, discard: float, stride: int = 1) -> RecordedRun:
    """Read what `run_md` wrote.

    Parameters
    ----------
    folder
        Output folder of a run.
    discard
        Fraction of the run to leave out at its start.
    stride
        Take every so many frames.

    Raises
    ------
    FileNotFoundError
        If the folder does not hold a run.
    ValueError
        For a senseless `discard` or `stride`, and for files that cannot be read.
    """
    if not 0 <= discard < 1:
        raise ValueError(f"discard must be a fraction of the run, 0 ≤ discard < 1, got {discard}")
    if stride < 1:
        raise ValueError(f"stride must be 1 or more frames, got {stride}")
    folder = Path(folder)
    path = trajectory_of(folder)
    for needed in (folder / CONFIG_FILE, folder / LOG_FILE, path):
        if not needed.is_file():
            raise FileNotFoundError(f"{folder} holds no run of phicalc: it has no {needed.name}")
    frames: Iterable[Atoms] = ase.io.iread(path, index=f"::{stride}")
    config = json.loads((folder / CONFIG_FILE).read_text())
    trajectory = read_trajectory(frames).late(discard)
    return RecordedRun(config, read_log(folder / LOG_FILE), trajectory, discard)
