"""Dynamics with each term: `make bench ARGS="-k term_dynamics"` (half an hour).

NaCl of 64 atoms at 600 K with the models of `test_charge_physics.py` (seed 1) in float64: 10 ps of
NVE in steps of 2 fs, and 4 ps of NPT (Nosé–Hoover, 1 bar), while pairs and waves of the lattice
sums come and go. Printed are the slope of the conserved energy, its spread, and the largest change
in a step. Dispersion has the coefficients that it starts with for anions, the smallest for cations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from phicalc import PhiCalculator
from phicalc.checkpoint import load_model
from phicalc.elements import is_metal
from phicalc.potential import Potential, build_potential
from phicalc.relax import relax

from .charge_physics.models import trained, weights_of
from .charge_physics.structures import NACL

TIMESTEP = 2.0
LENGTHS = {"nve": 10.0, "npt": 4.0}
TERMS: dict[str, dict[str, object]] = {
    "qeq, repulsion": {},
    "acks2, repulsion": {},
    "acks2": {"repulsion": "none"},
    "acks2, repulsion, dispersion": {"dispersion": "learned"},
}


def potential_with(name: str) -> Potential:
    """Trained model, with terms added or taken away."""
    plain = load_model(trained("crystals", name.partition(",")[0], "1") / "model")[0]
    potential = build_potential(dataclasses.replace(plain.config, **TERMS[name]))
    missing, unexpected = potential.load_state_dict(weights_of(plain), strict=False)
    assert not unexpected
    assert bool(missing) == name.endswith("dispersion")
    if potential.dispersion is not None:  # cations have hardly any, anions what free atoms have
        metals = torch.tensor([is_metal(symbol) for symbol in potential.config.elements])
        with torch.no_grad():
            potential.dispersion.offset[metals] = -20.0
    return potential


def crystal(potential: Potential) -> Atoms:
    """Relaxed, then warm."""
    atoms = bulk("NaCl", "rocksalt", a=NACL, cubic=True)
    atoms.calc = PhiCalculator(potential, dtype="float64", compile=False)
    relax(atoms, fmax=1e-3, cell=True)
    calculator, atoms = atoms.calc, atoms.repeat(2)
    atoms.calc = calculator
    thermalize_momenta(atoms, 600, rng=np.random.default_rng(1))
    return atoms


@pytest.mark.filterwarnings("ignore::phicalc.inference.concerns.DomainWarning")
@pytest.mark.parametrize("ensemble", list(LENGTHS))
@pytest.mark.parametrize("name", list(TERMS))
def test_term_dynamics(name: str, ensemble: str, record: Callable[[str, float], None]) -> None:
    atoms = crystal(potential_with(name))
    if ensemble == "nve":
        dynamics = VelocityVerlet(atoms, TIMESTEP * units.fs)
        conserved = atoms.get_total_energy
    else:
        dynamics = MTKNPT(
            atoms, TIMESTEP * units.fs, temperature_K=600, pressure_au=units.bar,
            tdamp=100 * units.fs, pdamp=1000 * units.fs,
        )  # fmt: skip
        conserved = dynamics.get_conserved_energy
    energies: list[float] = []
    dynamics.attach(lambda: energies.append(conserved()))
    dynamics.run(round(1000 * LENGTHS[ensemble] / TIMESTEP))
    found = 1000 * np.array(energies) / len(atoms)
    time = np.arange(len(found)) * TIMESTEP / 1000
    slope = float(np.polyfit(time, found, 1)[0])
    jump = float(np.abs(np.diff(found)).max())
    print(
        f"\n{ensemble} {name}: {slope:+.4f} meV/atom/ps, spread {found.std():.4f} meV/atom, "
        f"largest change in a step {jump:.4f} meV/atom; {atoms.get_temperature():.0f} K, "
        f"{atoms.get_volume() / len(atoms):.2f} Å³/atom at the end"
    )
    record(f"{ensemble} {name} drift (meV/atom/ps)", slope)
    record(f"{ensemble} {name} largest change in a step (meV/atom)", jump)
    assert np.isfinite(found).all()
