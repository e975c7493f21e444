"""Smoothness: forces have no jump where an atom enters the reach of others."""

from collections.abc import Callable

import numpy as np
from ase import Atoms
from jaxtyping import Float64
from numpy import ndarray

from phicalc.certificate import Curve, Figure, Plot
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.checks.walls import neutral_or_nearest
from phicalc.validation.scans import bisected_jump
from phicalc.validation.structures import contact
from phicalc.validation.subject import Subject

#: The path begins at this multiple of the sum of covalent radii; its end and its grid in Å.
INNERMOST, OUTERMOST, GRID = 1.5, 10.0, 0.2
#: So many intervals that stand out are halved, so many times.
N_INTERVALS, N_HALVINGS = 4, 24
#: Jumps of the energy in eV and of a force in eV/Å.
LARGEST_ENERGY, LARGEST_FORCE = 1e-3, 5e-3


def _probe(
    subject: Subject, symbol: str, charge: float
) -> Callable[[float], Float64[ndarray, "n"]]:
    """Return energy and forces of two atoms and a third one, at a distance, aslant."""
    host = subject.elements[0]
    bond = contact(host, host)

    def evaluate(distance: float) -> Float64[ndarray, "n"]:
        away = distance * np.array([0.6, 0.0, 0.8])
        atoms = Atoms([host, host, symbol], [[0, 0, 0], [-bond, 0.1, 0], away])
        ready = subject.ready(atoms, charge)
        energy = ready.get_potential_energy() / LARGEST_ENERGY
        return np.concatenate([[energy], ready.get_forces().ravel() / LARGEST_FORCE])

    return evaluate


def _intervals(values: Float64[ndarray, "n_points n"]) -> list[int]:
    """Return the intervals over which a value changes more than over both neighbors."""
    changes = np.abs(np.diff(values, axis=0))
    padded = np.pad(changes, ((1, 1), (0, 0)), mode="edge")
    excess = changes - np.maximum(padded[:-2], padded[2:])
    return [int(i) for i in np.argsort(excess.max(axis=1))[-N_INTERVALS:]]


def _run(subject: Subject, context: Context) -> Findings:
    charge, jumps, curves = neutral_or_nearest(subject), {}, []
    for symbol in subject.elements:
        evaluate = _probe(subject, symbol, charge)
        nearest = INNERMOST * contact(symbol, subject.elements[0])
        path = np.arange(nearest, OUTERMOST, GRID)
        values = np.array([evaluate(distance) for distance in path])
        jumps[symbol] = max(
            bisected_jump(evaluate, path[i], path[i + 1], N_HALVINGS, small=0.1)
            for i in _intervals(values)
        )
        curves.append(Curve.of(symbol, path, (values[:, 0] - values[-1, 0]) * LARGEST_ENERGY))
    worst = max(jumps, key=lambda symbol: jumps[symbol])
    limit = f"1 = {1000 * LARGEST_ENERGY:g} meV or {LARGEST_FORCE:g} eV/Å"
    figure = Figure.of(f"largest jump ({worst}; {limit})", jumps[worst], at_most=1)
    plot = Plot(
        f"an atom that comes near {subject.elements[0]}₂",
        "distance (Å)",
        "energy (eV)",
        tuple(curves),
        (-3.0, 3.0),
    )
    return Findings([figure], [plot])


CHECK = Check(
    name="cutoff",
    title="Smoothness: no jump where an atom comes within reach",
    cost=15.0,
    applies=lambda subject: "",
    run=_run,
)
