"""Energy conservation: dynamics without a thermostat."""

from ase import Atoms

from phicalc.certificate import Curve, Figure, Plot
from phicalc.md import read_log
from phicalc.relax import relax
from phicalc.structures import water_box
from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.structures import is_water, samples
from phicalc.validation.subject import Subject

#: ps, and meV/atom/ps.
DURATION, LARGEST = 1.5, 0.5


def start(subject: Subject) -> Atoms | None:
    """Return a small structure of the kind the subject is for; None if none is known."""
    if is_water(subject):
        return water_box(16, density=0.95)
    found = samples(subject)
    return min(found.values(), key=len) if found else None


def _applies(subject: Subject) -> str:
    return "" if start(subject) is not None else "no structure of its kind is known"


def _run(subject: Subject, context: Context) -> Findings:
    atoms = start(subject)
    assert atoms is not None  # it applies
    atoms = subject.ready(atoms)
    relax(atoms, fmax=0.1, steps=60)
    result = context.dynamics(
        atoms, DURATION, ensemble="nve", trajectory_interval=1000, checkpoint_interval=500
    )
    log = read_log(result.log)
    change = (log["conserved_energy_eV"] - log["conserved_energy_eV"][0]) / len(atoms) * 1000
    figures = [Figure.of("drift", abs(result.drift), "meV/atom/ps", at_most=LARGEST)]
    name = atoms.get_chemical_formula()
    plot = Plot(
        f"{name}, {context.config.temperature:g} K, {context.config.timestep:g} fs",
        "time (ps)",
        "change of the energy (meV/atom)",
        (Curve.of(name, log["time_ps"], change),),
    )
    return Findings(figures, [plot])


CHECK = Check(
    name="drift",
    title="Energy conservation in NVE dynamics",
    cost=90.0,
    applies=_applies,
    run=_run,
    quick=False,
)
