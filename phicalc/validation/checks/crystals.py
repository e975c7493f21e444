"""Crystals: lattice constant and bulk modulus beside experiment; the fit is smooth."""

from phicalc.certificate import Curve, Figure, Plot
from phicalc.properties import equation_of_state
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.structures import crystals
from phicalc.validation.subject import Subject

#: Relative errors of the lattice constant and of the bulk modulus; meV/atom of the fit.
LARGEST_LENGTH, LARGEST_MODULUS, LARGEST_RESIDUAL = 0.03, 0.4, 1.0
NO_CRYSTALS = "it knows no crystal that is tabulated here"


def applies(subject: Subject) -> str:
    """Return why a subject has no tabulated crystal; empty if it has one."""
    return "" if crystals(subject) else NO_CRYSTALS


def _run(subject: Subject, context: Context) -> Findings:
    figures, curves = [], []
    for name, (atoms, length, modulus) in crystals(subject).items():
        found = equation_of_state(subject.ready(atoms), strain=0.09)
        error = found.scale - 1
        figures += [
            Figure.of(
                f"{name}: lattice constant beside {length:g} Å",
                error,
                at_least=-LARGEST_LENGTH,
                at_most=LARGEST_LENGTH,
            ),
            Figure.of(
                f"{name}: bulk modulus beside {modulus:g} GPa",
                found.bulk_modulus / modulus - 1,
                at_least=-LARGEST_MODULUS,
                at_most=LARGEST_MODULUS,
            ),
            Figure.of(
                f"{name}: deviation of the fit",
                found.residual,
                "meV/atom",
                at_most=LARGEST_RESIDUAL,
            ),
        ]
        above = (found.energies - found.energy) / len(atoms)
        curves.append(Curve.of(name, found.volumes / found.volume, above))
    plot = Plot("equation of state", "V/V₀", "energy (eV/atom)", tuple(curves))
    return Findings(figures, [plot])


CHECK = Check(
    name="crystals",
    title="Crystals: lattice constant and bulk modulus",
    cost=18.0,
    applies=applies,
    run=_run,
)
