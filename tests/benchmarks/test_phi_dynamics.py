"""NVE with the smooth operator beside a hard cutoff: `make bench ARGS="-k phi_dynamics"`.

Rock salt of 64 atoms at 600 K, held together by Poisson's equation for charges of ±1 e (mode
``solve``) and kept apart by a Born–Mayer repulsion. Its second shell lies at the cutoff, where
neighbours enter and leave all the time. Prints the largest change of the total energy in a step
and the drift over 1 ps, with L as it is and with weights that end abruptly, as graphs of "all
neighbours within r_c" have them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from phicalc.electrostatics import laplacian
from phicalc.electrostatics.phi.poisson import screened_potential
from phicalc.graph import edge_vectors, from_ase
from phicalc.nn import envelope

CUTOFF = 4.0
STEPS, TIMESTEP = 1000, 1.0
#: eV, Å of the repulsion; eV per e²Å; 1/Å.
HEIGHT, DECAY, STRENGTH, SCREENING = 800.0, 0.33, 12.0, 0.2


class IonsOnAGraph(Calculator):
    """Charges of ±1 e that make a potential on the graph, and repel at short distance."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        graph = from_ase(atoms, CUTOFF)
        graph = graph._replace(positions=graph.positions.requires_grad_())
        charges = torch.where(graph.atomic_numbers == 11, 1.0, -1.0).double()[:, None]
        lengths = edge_vectors(graph).norm(dim=1)
        repulsion = 0.5 * HEIGHT * torch.exp(-lengths / DECAY) * envelope(lengths / CUTOFF)
        screening = torch.tensor([SCREENING]).double()
        operator = laplacian.graph_laplacian(graph, CUTOFF)
        potential = screened_potential(operator, screening, charges, 0)
        image = operator(potential) + screening * potential
        field = (charges * potential - 0.5 * potential * image).sum()
        energy = repulsion.sum() + STRENGTH * field
        (slope,) = torch.autograd.grad(energy, graph.positions)
        self.results = {"energy": float(energy.detach()), "forces": -slope.numpy()}


@pytest.mark.parametrize("kind", ["smooth", "hard"])
def test_phi_dynamics(kind: str, record, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "hard":
        monkeypatch.setattr(laplacian, "_weights", lambda lengths, cutoff: 1 / lengths)
    atoms = bulk("NaCl", "rocksalt", a=5.5, cubic=True).repeat(2)
    atoms.calc = IonsOnAGraph()
    thermalize_momenta(atoms, 600, rng=np.random.default_rng(1))
    dynamics, energies = VelocityVerlet(atoms, TIMESTEP * units.fs), []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    dynamics.run(STEPS)
    energies = np.array(energies)
    jump = np.abs(np.diff(energies)).max()
    slope = np.polyfit(np.arange(len(energies)) * TIMESTEP / 1000, energies, 1)[0]
    drift = 1000 * slope / len(atoms)
    print(
        f"\n{kind}: largest change in a step {jump:.2e} eV, spread {energies.std():.2e} eV, "
        f"drift {drift:+.3f} meV/atom/ps, {atoms.get_temperature():.0f} K at the end"
    )
    record(f"{kind} largest change in a step (eV)", jump)
    assert np.isfinite(energies).all()
    assert (jump < 0.02) == (kind == "smooth")
