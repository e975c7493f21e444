"""The verb ``view``."""

import argparse
from pathlib import Path

from phicalc.md.folder import trajectory_of
from phicalc.structures import read_structures
from phicalc.view import write_view
from phicalc.view.page import MOST_FRAMES


def add_view(verb: argparse.ArgumentParser) -> None:
    """Atoms and charges in a browser."""
    verb.set_defaults(run=_view)
    verb.description = (
        "Write structures or a trajectory as one HTML file, to turn and to play in any browser, "
        "without a network. Atoms are colored by the partial charges that the file holds: files "
        "of phicalc md and of phicalc predict --output have them."
    )
    verb.add_argument("input", help="structure file (extxyz, traj, CIF, …), or folder of a run")
    verb.add_argument("--index", default=":", help="choose structures of the file, as in ASE")
    verb.add_argument("--output", default="view.html", help="the HTML file")
    verb.add_argument(
        "--frames", type=int, default=MOST_FRAMES, help="show so many at most, evenly spread"
    )


def _view(options: argparse.Namespace) -> None:
    path = Path(options.input)
    if path.is_dir():
        path = trajectory_of(path)
    frames = read_structures(path, options.index)
    view = write_view(frames, options.output, title=path.name, most=options.frames)
    charges = "no charges: colored by element"
    if view.charges is not None:
        charges = "charges {:+.3f} … {:+.3f} e".format(*view.charges)
    print(f"{view.n_frames} of {len(frames)} frames, {charges}")
    print(f"page: {view.path}")
