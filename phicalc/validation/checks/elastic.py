"""Elastic constants: stable crystals, and the bulk modulus of the equation of state."""

from phicalc.certificate import Figure
from phicalc.properties import elastic_constants, equation_of_state
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.checks.crystals import applies
from phicalc.validation.scans import relaxed
from phicalc.validation.structures import crystals
from phicalc.validation.subject import Subject

#: The bulk modulus by stress and that by energies differ by less than this part.
CONSISTENT = 0.05


def _applies(subject: Subject) -> str:
    if not subject.knows_stress:
        return "its stress was not trained"
    for atoms, _, _ in crystals(subject).values():
        if "stress" not in subject.ready(atoms).calc.implemented_properties:
            return "it has no stress"
    return applies(subject)


def _run(subject: Subject, context: Context) -> Findings:
    figures = []
    for name, (atoms, _, _) in crystals(subject).items():
        crystal = relaxed(subject, atoms, fmax=0.001, cell=True)
        found = elastic_constants(crystal, relax=len(crystal) > 2)
        other = equation_of_state(crystal, strain=0.03).bulk_modulus
        stiffness = found.stiffness
        constants = (
            f"C11 {stiffness[0, 0]:.1f}, C12 {stiffness[0, 1]:.1f}, C44 {stiffness[3, 3]:.1f}"
        )
        figures += [
            Figure.of(
                f"{name}: shear modulus ({constants} GPa)", found.shear_modulus, "GPa", at_least=0.0
            ),
            Figure.of(
                f"{name}: stable against every small strain (1: yes)",
                float(found.stable),
                at_least=1.0,
            ),
            Figure.of(
                f"{name}: bulk modulus by stress over that by energies, less 1",
                found.bulk_modulus / other - 1,
                at_least=-CONSISTENT,
                at_most=CONSISTENT,
            ),
        ]
    return Findings(figures)


CHECK = Check(
    name="elastic",
    title="Elastic constants: stable, and consistent with the energies",
    cost=50.0,
    applies=_applies,
    run=_run,
    quick=False,
)
