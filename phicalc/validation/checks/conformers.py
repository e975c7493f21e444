"""Conformers: which one is lower, and by how much."""

import numpy as np
from ase.build import molecule

from phicalc.certificate import Figure
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.checks.torsions import turned
from phicalc.validation.scans import relaxed
from phicalc.validation.subject import Subject

#: Molecule, bond that is turned and the angle; energy of the turned conformer above the start in
#: eV (experiment, or coupled clusters).
CONFORMERS = {
    "butane, gauche": ("trans-butane", ("C", "C"), 115.0, 0.029),
    "formic acid, anti": ("HCOOH", ("C", "O"), 180.0, 0.169),
    "butadiene, gauche": ("butadiene", ("C", "C"), 145.0, 0.125),
    "glyoxal, cis": ("OCHCHO", ("C", "C"), 180.0, 0.19),
    "acetic acid, anti": ("CH3COOH", ("C", "O"), 180.0, 0.23),
}
#: Isomers: the second above the first in eV (heats of formation at 298 K).
ISOMERS = {
    "dimethyl ether above ethanol": ("CH3CH2OH", "CH3OCH3", 0.52),
    "cyclopropane above propene": ("C3H6_Cs", "C3H6_D3h", 0.34),
    "allene above propyne": ("C3H4_C3v", "C3H4_D2d", 0.05),
    "isobutane above butane": ("trans-butane", "isobutane", -0.09),
}
#: eV.
LARGEST, LARGEST_OF_ISOMERS = 0.05, 0.3


def _known(subject: Subject, name: str) -> bool:
    usable = subject.knows_molecules and subject.takes_charge(0.0)
    return usable and subject.covers(molecule(name))


def _applies(subject: Subject) -> str:
    names = [row[0] for row in CONFORMERS.values()]
    return "" if any(_known(subject, name) for name in names) else "it knows none of the molecules"


def _run(subject: Subject, context: Context) -> Findings:
    figures = []
    for name, (source, bond, angle, expected) in CONFORMERS.items():
        if _known(subject, source):
            start = relaxed(subject, molecule(source))
            other = relaxed(subject, turned(start, bond, angle, inner=True))
            found = other.get_potential_energy() - start.get_potential_energy()
            figures.append(
                Figure.of(
                    f"{name} (experiment {expected:g} eV)",
                    found,
                    "eV",
                    at_least=expected - LARGEST,
                    at_most=expected + LARGEST,
                )
            )
    for name, (first, second, expected) in ISOMERS.items():
        if _known(subject, first) and _known(subject, second):
            energies = [
                relaxed(subject, molecule(n)).get_potential_energy() for n in (first, second)
            ]
            found = float(np.diff(energies)[0])
            figures.append(
                Figure.of(
                    f"{name} (experiment {expected:g} eV)",
                    found,
                    "eV",
                    at_least=expected - LARGEST_OF_ISOMERS,
                    at_most=expected + LARGEST_OF_ISOMERS,
                )
            )
    return Findings(figures)


CHECK = Check(
    name="conformers",
    title="Conformers and isomers: order and distance of energies",
    cost=45.0,
    applies=_applies,
    run=_run,
    quick=False,
)
