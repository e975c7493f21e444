"""Parameters and error of the electrostatic sum of one structure."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float64
from torch import Tensor

from phicalc.electrostatics.charges.elements import covalent_radius
from phicalc.electrostatics.sums.choice import estimate, survey
from phicalc.electrostatics.sums.coulomb import CoulombSum
from phicalc.electrostatics.sums.plan import CoulombPlanner
from phicalc.electrostatics.sums.settings import ACCURACY_RANGE, CoulombSettings, SumParameters
from phicalc.graph import AtomicGraph, from_ase

#: The sum that judges is so much more accurate than the one judged.
_STRICTER = 1e-3
#: Up to so many atoms an Ewald sum judges, beyond it a mesh.
_EWALD_ATOMS = 2000


class SumReport(NamedTuple):
    """Method, parameters and error of the electrostatic sum of one structure."""

    parameters: SumParameters
    n_pairs: int
    """Pairs summed in real space."""
    n_waves: int
    """Vectors k summed, or points of the mesh."""
    force_accuracy: float
    """Requested accuracy in eV/Å."""
    estimated: dict[str, float]
    """Estimated errors of the forces in eV/Å, by part of the sum."""
    force_error: float
    """Root mean square error of the forces in eV/Å, against a sum 1000 times as accurate."""
    max_force_error: float
    """Largest error of a component of a force in eV/Å."""
    stress_error: float | None
    """Largest error of a component of the stress in eV/Å³; None unless all axes are periodic."""
    energy: float
    """Electrostatic energy in eV."""
    energy_error: float
    """Its error in eV."""

    def __str__(self) -> str:
        """Return a few lines to read."""
        p = self.parameters
        lines = [f"method {p.method}: {self.n_pairs} pairs, {self.n_waves} waves or mesh points"]
        if p.method != "direct":
            lines.append(f"splitting {p.splitting:.4g}/Å, real-space cutoff {p.real_cutoff:.4g} Å")
        if p.method == "ewald":
            lines.append(f"k cutoff {p.k_cutoff:.4g}/Å")
        if p.method == "mesh":
            lines.append(f"mesh {' x '.join(map(str, p.mesh))}, splines of order {p.spline_order}")
        if p.open_length:
            lines.append(f"box of {p.open_length:.4g} Å along open axes")
        for part, error in self.estimated.items():
            lines.append(f"estimated force error of the {part}: {error:.2e} eV/Å")
        lines.append(
            f"force error: rms {self.force_error:.2e}, largest {self.max_force_error:.2e}, "
            f"asked for {self.force_accuracy:.2e} eV/Å"
        )
        if self.stress_error is not None:
            lines.append(f"stress error: largest {self.stress_error:.2e} eV/Å³")
        lines.append(f"energy {self.energy:.6f} eV, error {self.energy_error:.2e} eV")
        return "\n".join(lines)


def report(
    atoms: Atoms,
    charges: Float64[np.ndarray, " n_atoms"] | None = None,
    smearing: float | Float64[np.ndarray, " n_atoms"] | None = None,
    settings: CoulombSettings | None = None,
) -> SumReport:
    """Return the error of the electrostatic sum of a structure, from a second, more accurate sum.

    `CoulombSettings.force_accuracy` bounds the root mean square error of the forces. The largest
    component, and the stress, have no such bound: their errors are reported.

    Parameters
    ----------
    atoms
        The structure.
    charges
        In e; by default those of its calculator.
    smearing
        Gaussian widths in Å, one or many; by default the covalent radii.
    settings
        By default those of `CoulombSettings`.

    Raises
    ------
    ValueError
        For an empty structure, widths that are not positive, or charges that are not finite.
    """
    if len(atoms) == 0:
        raise ValueError("a report needs at least one atom")
    settings = settings or CoulombSettings()
    q = torch.as_tensor(atoms.get_charges() if charges is None else charges, dtype=torch.float64)
    if smearing is None:
        smearing = np.array([covalent_radius(symbol) for symbol in atoms.symbols])
    widths = torch.as_tensor(smearing, dtype=torch.float64).expand(len(atoms)).clone()
    graph = from_ase(atoms, 1.0)
    found = _sum(graph, widths, q, settings)
    judge = replace(
        CoulombSettings(max(_STRICTER * settings.force_accuracy, ACCURACY_RANGE[0])),
        method="ewald" if atoms.pbc.any() and len(atoms) <= _EWALD_ATOMS else "auto",
    )
    exact = _sum(graph, widths, q, judge)
    parameters, plan = found.parameters, found.coulomb.plan
    scale = float(q.square().mean().sqrt())
    ions = survey(graph.positions, graph.cell[0], graph.pbc[0], widths, scale)
    error = found.forces - exact.forces
    strain_error = float((found.strain_derivative - exact.strain_derivative).abs().max())
    return SumReport(
        parameters=parameters,
        n_pairs=plan.pair_index.shape[1],
        n_waves=plan.kvectors.shape[1] or int(np.prod(parameters.mesh)),
        force_accuracy=settings.force_accuracy,
        estimated=estimate(parameters, ions, found.coulomb.box[0].detach()),
        force_error=float(error.square().sum(1).mean().sqrt()),
        max_force_error=float(error.abs().max()),
        stress_error=strain_error / atoms.get_volume() if atoms.pbc.all() else None,
        energy=found.energy,
        energy_error=found.energy - exact.energy,
    )


class _Sum(NamedTuple):
    """One sum, with derivatives of its energy."""

    energy: float
    """eV."""
    forces: Float64[Tensor, "n_atoms 3"]
    """eV/Å."""
    strain_derivative: Float64[Tensor, "3 3"]
    """eV."""
    parameters: SumParameters
    coulomb: CoulombSum


def _sum(
    graph: AtomicGraph,
    smearing: Float64[Tensor, " n_atoms"],
    charges: Float64[Tensor, " n_atoms"],
    settings: CoulombSettings,
) -> _Sum:
    """Plan and compute one sum."""
    planner = CoulombPlanner(settings)
    planned = planner.plan(graph, smearing, charges)
    strain = torch.zeros((3, 3), dtype=torch.float64, requires_grad=True)
    deformation = torch.eye(3, dtype=torch.float64) + strain
    positions = planned.positions.clone().requires_grad_()
    strained = planned._replace(positions=positions @ deformation, cell=planned.cell @ deformation)
    coulomb = CoulombSum(strained, smearing)
    energy = coulomb.energy(charges).sum()
    inputs = (positions, strain)
    gradient, virial = torch.autograd.grad(
        energy, inputs, allow_unused=True, materialize_grads=True
    )
    assert planner.parameters is not None
    return _Sum(float(energy.detach()), -gradient, virial, planner.parameters, coulomb)
