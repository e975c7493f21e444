"""The HTML of a view: 3Dmol.js, the script that plays frames with it, and the frames."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from phicalc.pages import page
from phicalc.structures.writing import write_text
from phicalc.view.frames import charges_of, records

#: Frames that a view holds at most, unless asked for more.
MOST_FRAMES = 200
_CONTROLS = """\
<div class="stage" role="img" aria-label="atoms in 3D; drag to turn, scroll to zoom"></div>
<div class="controls">
<button type="button" aria-label="play or pause">▶</button>
<input type="range" min="0" value="0" aria-label="frame">
<label>color: <select><option value="charges">charges</option>\
<option value="elements">elements</option></select></label>
<span class="scale"><span></span><canvas width="128" height="12"></canvas><span></span></span>
</div>
<output></output>
"""


class View(NamedTuple):
    """What `write_view` has written."""

    path: Path
    """The HTML file."""
    n_frames: int
    """Number of frames in it."""
    charges: tuple[float, float] | None
    """Smallest and largest charge in e; None if no frame holds charges."""


def write_view(
    frames: Sequence[Atoms],
    path: str | Path,
    *,
    title: str = "Atoms and charges",
    most: int = MOST_FRAMES,
) -> View:
    """Write an interactive 3D view of frames as one HTML file, which loads nothing from elsewhere.

    Atoms are colored by their partial charges (dark blue negative, yellow positive, also readable
    in grey) or by element; periodic cells are drawn; frames can be played. A caption tells time,
    energy and temperature (that of all 3N degrees of freedom) as far as the frames do.

    Parameters
    ----------
    frames
        A trajectory, or structures that differ in their atoms; charges are results of their
        calculators, or an array ``charges``, in e.
    path
        The file.
    title
        Heading.
    most
        Show so many frames at most, evenly spread.

    Raises
    ------
    ValueError
        If there is no frame, or `most` is not positive.
    """
    shown = spread(frames, most)
    written = write_text(path, page(title, view_part(shown)))
    found = [charges for atoms in shown if (charges := charges_of(atoms)) is not None]
    values = np.concatenate(found) if found else np.zeros(0)
    limits = (float(values.min()), float(values.max())) if len(values) else None
    return View(written, len(shown), limits)


def spread(frames: Sequence[Atoms], most: int) -> list[Atoms]:
    """Return at most so many frames, evenly spread, the first and the last among them.

    Raises
    ------
    ValueError
        If there is no frame, or `most` is not positive.
    """
    if not frames or most < 1:
        raise ValueError(
            f"a view needs 1 or more frames, got {len(frames)}, and {most} as most of them to show"
        )
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).astype(int))
    return [frames[number] for number in chosen]


def view_part(frames: Sequence[Atoms]) -> str:
    """Return the view as a part of an HTML page; all frames are in it.

    Parameters
    ----------
    frames
        As in `write_view`.
    """
    data = json.dumps(list(records(frames)), ensure_ascii=False)  # holds no text of the user's
    folder = files("phicalc.view")
    read = {
        name: folder.joinpath(name).read_text(encoding="utf-8")
        for name in ("view.css", "bundle/3Dmol-min.js", "view.js")
    }
    return (
        f'<style>{read["view.css"]}</style>\n<div class="view">\n{_CONTROLS}'
        f'<script type="application/json">{data}</script>\n'
        f"<script>{read['bundle/3Dmol-min.js']}</script>\n"
        f"<script>{read['view.js']}</script>\n</div>\n"
    )
