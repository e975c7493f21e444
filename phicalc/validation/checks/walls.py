"""Short distances: a wall for every pair of elements."""

from collections.abc import Callable, Iterable

import numpy as np
from ase import Atoms
from jaxtyping import Float64
from numpy import ndarray

from phicalc.certificate import Curve, Figure, Plot
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.scans import Scan, Wall, scan, wall
from phicalc.validation.structures import contact, pairs
from phicalc.validation.subject import Subject

#: eV: no thermal motion climbs so high.
HIGH = 20.0
#: eV: what numerical noise may do.
NOISE = 0.1
#: Å: the innermost distance.
INNERMOST = 0.2
#: The path starts at the lowest energy between these multiples of the sum of covalent radii: two
#: atoms at contact may still form a bond, and fall on the way.
START = (0.7, 1.0)
N_POINTS = 30


def distances(
    first: str, second: str, start: tuple[float, float] = START, n_points: int = N_POINTS
) -> tuple[Float64[ndarray, " n_points"], int]:
    """Distances from outside inwards in Å, and how many belong to the start."""
    sum_of_radii = contact(first, second)
    path = np.geomspace(start[1] * sum_of_radii, INNERMOST, n_points)
    return path, int((path >= start[0] * sum_of_radii).sum())


def neutral_or_nearest(subject: Subject) -> float:
    """Total charge in e for structures made here: 0, or the nearest that the subject takes."""
    limits = subject.claims.charge_range
    return 0.0 if limits is None else float(np.clip(0.0, *limits))


def judge(
    scans: Iterable[tuple[str, Float64[ndarray, " n"], Scan, Wall]],
) -> Findings:
    """Return the figures of walls: names, distances (Å), energies, what they say."""
    rows = list(scans)
    lowest = min(rows, key=lambda row: _low(row[3].top))
    deepest = max(rows, key=lambda row: _high(row[3].fall))
    excess = [row[2].excess for row in rows if not np.isnan(row[2].excess)]
    holes = sum(not (row[3].top >= HIGH and row[3].fall <= NOISE) for row in rows)
    figures = [
        Figure.of("pairs with a hole", holes, at_most=0),
        Figure.of(f"lowest wall ({lowest[0]})", lowest[3].top, "eV", at_least=HIGH),
        Figure.of(f"deepest fall inwards ({deepest[0]})", deepest[3].fall, "eV", at_most=NOISE),
    ]
    if excess:
        figures.append(Figure.of("largest charge beyond valence + 2", max(excess), "e", at_most=0))
    worst = sorted(rows, key=lambda row: _low(row[3].top))[:8]
    curves = [
        Curve.of(name, path, found.energies - _start(found)) for name, path, found, _ in worst
    ]
    plot = Plot("lowest walls", "distance (Å)", "energy (eV)", tuple(curves), (-5.0, 2 * HIGH))
    broken = [f"{row[0]} {row[3].top:.1f} eV" for row in rows if row[3].fall > NOISE]
    notes = [f"highest point before the fall: {', '.join(broken)}"] if broken else []
    return Findings(figures, [plot], notes)


def _low(value: float) -> float:
    return -np.inf if np.isnan(value) else value


def _high(value: float) -> float:
    return np.inf if np.isnan(value) else value


def _start(found: Scan) -> float:
    finite = found.energies[np.isfinite(found.energies)]
    return float(finite[0]) if len(finite) else 0.0


def follow(
    subject: Subject,
    name: str,
    path: Float64[ndarray, " n_points"],
    n_outer: int,
    build: Callable[[float], Atoms],
    charge: float = 0.0,
) -> tuple[str, Float64[ndarray, " n_points"], Scan, Wall]:
    """Return the row of one path for `judge`; `charge` is that of the structures, in e."""
    found = scan(subject, map(build, path), charge)
    return name, path, found, wall(found.energies, n_outer, HIGH)


def _run(subject: Subject, context: Context) -> Findings:
    charge = neutral_or_nearest(subject)
    rows = []
    for first, second in pairs(subject.elements):

        def pair_at(distance: float, symbols: tuple[str, str] = (first, second)) -> Atoms:
            return Atoms(symbols, [[0, 0, 0], [0, 0, distance]])

        path, n_outer = distances(first, second)
        rows.append(follow(subject, f"{first}–{second}", path, n_outer, pair_at, charge))
    return judge(rows)


CHECK = Check(
    name="walls",
    title="Short distances: a wall for every pair of elements",
    cost=20.0,
    applies=lambda subject: "",
    run=_run,
)
