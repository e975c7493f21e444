"""Phonons: no imaginary frequency, and the splitting of optical modes of ionic crystals."""

from phicalc.certificate import Curve, Figure, Plot
from phicalc.properties import phonons
from phicalc.units import WAVENUMBER_PER_THZ
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.checks.crystals import applies
from phicalc.validation.scans import relaxed
from phicalc.validation.structures import crystals
from phicalc.validation.subject import Subject

#: Transverse and longitudinal optical mode at Γ in cm⁻¹ (experiment, near room temperature).
OPTICAL = {
    "LiF": (306, 659),
    "NaCl": (164, 264),
    "MgO": (401, 718),
    "NaF": (244, 418),
    "KCl": (142, 214),
}
#: THz, and the part of the experimental splitting that must be there.
NOISE, SPLITTING = 0.1, 0.5


def _run(subject: Subject, context: Context) -> Findings:
    figures, plots = [], []
    for name, (atoms, _, _) in crystals(subject).items():
        has_stress = "stress" in subject.ready(atoms).calc.implemented_properties
        usable = has_stress and subject.knows_stress
        crystal = relaxed(subject, atoms, fmax=0.001, cell=True) if usable else subject.ready(atoms)
        found = phonons(crystal, mesh=(8, 8, 8), n_points=60)
        figures.append(Figure.of(f"{name}: lowest frequency", found.lowest, "THz", at_least=-NOISE))
        if name in OPTICAL:
            figures += _splitting(name, found.longitudinal, found.bands)
        distances = found.path.get_linear_kpoint_axis()[0]
        curves = [Curve.of(f"{band}", distances, row) for band, row in enumerate(found.bands.T)]
        plots.append(Plot(f"{name}, without LO–TO splitting", "wave vector", "THz", tuple(curves)))
    return Findings(figures, plots)


def _splitting(name, longitudinal, bands) -> list[Figure]:  # type: ignore[no-untyped-def]
    """Return the figure of the LO–TO splitting: 0 where the model has none."""
    transverse, expected = OPTICAL[name][0], OPTICAL[name][1] - OPTICAL[name][0]
    gap = (
        0.0 if longitudinal is None else (longitudinal.max() - bands[0].max()) * WAVENUMBER_PER_THZ
    )
    text = f"{name}: LO–TO splitting (experiment {transverse} + {expected} cm⁻¹)"
    return [Figure.of(text, gap, "cm⁻¹", at_least=SPLITTING * expected)]


CHECK = Check(
    name="phonons",
    title="Phonons: no imaginary frequency; LO–TO splitting",
    cost=120.0,
    applies=applies,
    run=_run,
    quick=False,
)
