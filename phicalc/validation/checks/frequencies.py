"""Vibrations of molecules beside experiment."""

import numpy as np
from ase import Atoms
from ase.build import molecule

from phicalc.certificate import Curve, Figure, Plot
from phicalc.properties import vibrations
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.scans import relaxed
from phicalc.validation.structures import is_water, molecules
from phicalc.validation.subject import Subject

#: Fundamentals in cm⁻¹ (Shimanouchi, NSRDS-NBS 39, and NIST's webbook), ascending.
FUNDAMENTALS = {
    "H2O": (1595, 3657, 3756),
    "NH3": (950, 1627, 1627, 3337, 3444, 3444),
    "CH4": (1306, 1306, 1306, 1534, 1534, 2917, 3019, 3019, 3019),
    "C2H2": (612, 612, 730, 730, 1974, 3289, 3374),
    "C2H4": (826, 943, 949, 1023, 1236, 1342, 1444, 1623, 2989, 3026, 3103, 3106),
    "H2CO": (1167, 1249, 1500, 1746, 2782, 2843),
    "HCN": (712, 712, 2097, 3311),
    "CO2": (667, 667, 1333, 2349),
    "SO2": (518, 1151, 1362),
    "SH2": (1183, 2615, 2626),
    "CO": (2143,),
    "N2": (2331,),
    "F2": (894,),
    "Cl2": (554,),
    "HCl": (2886,),
    "HF": (3961,),
    "H2": (4161,),
    "C2H6": (
        289,
        822,
        822,
        995,
        1190,
        1190,
        1379,
        1388,
        1468,
        1468,
        1469,
        1469,
        2896,
        2954,
        2969,
        2969,
        2985,
        2985,
    ),
}
#: Harmonic frequencies lie about 4 % above fundamentals; the rest is for the level of theory.
LARGEST_RMS, LARGEST_LOWEST = 0.12, 0.25


def _molecules(subject: Subject) -> dict[str, Atoms]:
    if is_water(subject) and not subject.knows_molecules:
        return {"H2O": molecule("H2O")}
    return molecules(subject, tuple(FUNDAMENTALS))


def _applies(subject: Subject) -> str:
    return "" if _molecules(subject) else "it knows none of the molecules"


def _run(subject: Subject, context: Context) -> Findings:
    figures, notes, lowest, n_imaginary = [], [], {}, 0
    found: list[float] = []
    known: list[float] = []
    for name, atoms in _molecules(subject).items():
        start = relaxed(subject, atoms, fmax=0.002)
        expected = np.array(FUNDAMENTALS[name], dtype=float)
        result = vibrations(start)
        frequencies = np.sort(result.frequencies)
        if len(frequencies) != len(expected):
            raise RuntimeError(f"{name} is not linear or bent as it should be")
        n_imaginary += result.n_imaginary
        lowest[name] = frequencies[0] / expected[0] - 1
        found.extend(frequencies)
        known.extend(expected)
        notes.append(f"{name}: lowest {frequencies[0]:.0f}, experiment {expected[0]:.0f} cm⁻¹")
    errors = np.array(found) / np.array(known) - 1
    worst = max(lowest, key=lambda name: abs(lowest[name]))
    figures.append(Figure.of("imaginary modes", n_imaginary, at_most=0))
    figures.append(
        Figure.of("relative error, rms", float(np.sqrt(np.mean(errors**2))), at_most=LARGEST_RMS)
    )
    figures.append(
        Figure.of(
            f"relative error of a lowest mode ({worst})", abs(lowest[worst]), at_most=LARGEST_LOWEST
        )
    )
    order = np.argsort(known)
    curves = (
        Curve.of("model", np.array(known)[order], np.array(found)[order]),
        Curve.of("model", [0, 4200], [0, 4200], reference=True),
    )
    plot = Plot("all modes", "experiment (cm⁻¹)", "model (cm⁻¹)", curves)
    return Findings(figures, [plot], notes)


CHECK = Check(
    name="frequencies",
    title="Vibrations of molecules beside experiment",
    cost=35.0,
    applies=_applies,
    run=_run,
)
