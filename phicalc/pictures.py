"""How pictures look: one style, one color for each element, numbers as print wants them."""

import math

import numpy as np
from ase.data import atomic_numbers
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

BLUE, RED, GREY = "#2f6db5", "#c8443a", "#8a8f98"


def new_figure(
    n_rows: int, n_columns: int, *, width: float = 4.9, height: float = 3.6
) -> tuple[Figure, list[Axes]]:
    """Return a white figure with a grid of axes in the house style, row by row.

    `width` and `height` are of one panel, in inches.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    size = (width * n_columns, height * n_rows)
    figure = Figure(figsize=size, layout=layout, facecolor="white")
    panels = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panels


def element_color(symbol: str) -> tuple[float, float, float]:
    """Return the usual color of an element, darkened where white paper would swallow it.

    Bright ones are darkened alike, so that the greys of H and C remain two.
    """
    color = jmol_colors[atomic_numbers[symbol]]
    brightness = float(np.dot(color, (0.3, 0.6, 0.1)))
    red, green, blue = (channel * (0.65 if brightness > 0.5 else 1.0) for channel in color)
    return red, green, blue


def signed(value: float, digits: int) -> str:
    """Write a number with its sign; the minus of typography, as on the axes."""
    return f"{value:+.{digits}f}".replace("-", "−")


def with_error(value: float, error: float) -> str:
    """Write a number with its error, which is given two digits: ``2.31 ± 0.12``."""
    if not math.isfinite(error) or error <= 1e-9 * abs(value):
        return f"{value:.4g}".replace("-", "−")
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}".replace("-", "−")
