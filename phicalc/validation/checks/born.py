"""Born charges: they sum to zero and do not depend on the cell."""

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from phicalc.certificate import Figure
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.structures import crystals, samples
from phicalc.validation.subject import Subject

#: e.
LARGEST = 0.02


def _structures(subject: Subject) -> dict[str, Atoms]:
    found = {
        name: atoms
        for name, (atoms, _, _) in crystals(subject).items()
        if len(set(atoms.symbols)) > 1
    }
    return found or samples(subject, most=1)


def _applies(subject: Subject) -> str:
    found = _structures(subject)
    if not found:
        return "no structure of its kind is known: give structures"
    ready = subject.ready(next(iter(found.values())))
    if not hasattr(ready.calc, "get_born_effective_charges"):
        return "the calculator has no Born charges"
    try:
        ready.calc.get_born_effective_charges(ready)
    except PropertyNotImplementedError as error:
        return " ".join(str(error).split())
    return ""


def _run(subject: Subject, context: Context) -> Findings:
    figures = []
    for name, atoms in _structures(subject).items():
        ready = subject.ready(atoms)
        born = ready.calc.get_born_effective_charges(ready)
        total = np.trace(born.sum(axis=0)) / 3 - ready.info["charge"]
        figures.append(
            Figure.of(
                f"{name}: sum over the atoms beside the total charge",
                abs(total),
                "e",
                at_most=LARGEST,
            )
        )
        if atoms.pbc.all():
            larger = subject.ready(atoms.repeat(2))
            spread = np.abs(larger.calc.get_born_effective_charges(larger)[: len(atoms)] - born)
            figures.append(
                Figure.of(
                    f"{name}: change in a cell of eight", float(spread.max()), "e", at_most=LARGEST
                )
            )
    return Findings(figures)


CHECK = Check(
    name="born",
    title="Born charges: the sum rule, and no dependence on the cell",
    cost=11.0,
    applies=_applies,
    run=_run,
)
