"""The dipole moment along a trajectory, and the dielectric constant of its fluctuations."""

import numpy as np
from jaxtyping import Float, Int

from phicalc.analysis.blocks import Estimate, jackknife
from phicalc.analysis.diffusion import periodic_projector
from phicalc.analysis.trajectory import Trajectory
from phicalc.structures.molecules import BROKEN_STRETCH, longest_stretch
from phicalc.units import BOLTZMANN_CONSTANT, COULOMB_CONSTANT

#: e: a molecule with a smaller mean charge is neutral.
NEUTRAL = 0.05
#: Å: ions that move farther (root mean square) than this are no longer bound to a site.
BOUND = 1.5


def itinerant_dipole(trajectory: Trajectory) -> Float[np.ndarray, "n_frames 3"]:
    """Dipole moment of every frame in e Å, continuous in time, (n_frames, 3).

    .. math:: M = Σ_g [ Σ_{i∈g} q_i (r_i − R_g) + Q_g R_g ]

    over molecules g with centers of mass R, made whole and followed across the boundaries; Q_g is
    the charge of the molecule averaged over time (and over molecules of the same composition), so
    that M does not depend on which image of a molecule is counted. A network of bonds without end
    (a crystal) has no molecules: each atom is a group of its own there. Charge that flows from one
    molecule to another does not count. Along open directions M is the plain Σ q_i (r_i − R), which
    neglects nothing. Its origin has no meaning where there are ions or periodic networks; its
    changes have.

    Raises
    ------
    ValueError
        Where it is not defined, with the reason.
    """
    if trajectory.charges is None:
        raise ValueError("the frames have no charges")
    positions, pbc = trajectory.positions, trajectory.atoms.pbc
    stretch = longest_stretch(trajectory.molecules, trajectory.atoms.numbers, positions)
    if pbc.any() and stretch > BROKEN_STRETCH:
        raise ValueError(f"molecules break: a bond of the first frame grew to {stretch:.1f} radii")
    charges, masses = trajectory.charges, trajectory.atoms.get_masses()
    groups = trajectory.molecules.wholes
    centers = _sums(positions * masses[:, None], groups) / _sums(masses[None], groups)[..., None]
    inside = np.einsum("fn,fna->fa", charges, positions - centers[:, groups])
    between = np.einsum("g,fga->fa", group_charges(trajectory), centers)
    projector = periodic_projector(trajectory.cells[0], pbc)
    center = np.einsum("n,fna->fa", masses / masses.sum(), positions)
    plain = np.einsum("fn,fna->fa", charges, positions - center[:, None])
    return (inside + between) @ projector + plain @ (np.eye(3) - projector)


def group_charges(trajectory: Trajectory) -> Float[np.ndarray, " n_groups"]:
    """Charge of each group in e: mean over time and groups of the same elements, (n_groups,)."""
    assert trajectory.charges is not None  # callers have looked
    groups, numbers = trajectory.molecules.wholes, trajectory.atoms.numbers
    charges = _sums(trajectory.charges.mean(axis=0)[None], groups)[0]
    order, starts = _blocks(groups)
    members = np.split(numbers[order], starts[1:])
    kinds = np.unique([str(sorted(group.tolist())) for group in members], return_inverse=True)[1]
    mean = (np.bincount(kinds, charges) / np.bincount(kinds))[kinds]
    return np.where(np.abs(mean) < NEUTRAL, 0.0, mean)


def _sums(
    values: Float[np.ndarray, "n_frames n_atoms ..."], groups: Int[np.ndarray, " n_atoms"]
) -> Float[np.ndarray, "n_frames n_groups ..."]:
    """Sum over the atoms (second axis) of each group."""
    order, starts = _blocks(groups)
    return np.add.reduceat(values[:, order], starts, axis=1)


def _blocks(
    groups: Int[np.ndarray, " n_atoms"],
) -> tuple[Int[np.ndarray, " n_atoms"], Int[np.ndarray, " n_groups"]]:
    """Order of the atoms by group, and where each group starts in it."""
    order = np.argsort(groups, kind="stable")
    return order, np.searchsorted(groups[order], np.arange(groups.max() + 1))


def dielectric_constant(
    trajectory: Trajectory, dipole: Float[np.ndarray, "n_frames 3"], temperature: float
) -> Estimate:
    """Compute the static dielectric constant from the dipole's fluctuation, tin-foil boundaries.

    .. math:: ε = 1 + 4π k_e (⟨M²⟩ − ⟨M⟩²) / (3 V k_B T)

    The electrons' own answer is not in the fluctuation: 1 stands for ε∞, and charges that were
    learned from forces may be smaller than bare ones by √ε∞. The mean of the three directions; for
    a liquid that is ε, for a crystal a third of the tensor's trace. Not the run's length but its
    number of correlation times of M matters: some ten are the least.

    Parameters
    ----------
    trajectory
        Periodic in three directions.
    dipole
        Of `itinerant_dipole`, e Å, (n_frames, 3).
    temperature
        K.

    Raises
    ------
    ValueError
        Where it is not defined, with the reason.

    References
    ----------
    Neumann, Mol. Phys. 50, 841 (1983), doi:10.1080/00268978300102721.
    """
    if not trajectory.atoms.pbc.all():
        raise ValueError("it belongs to a structure periodic in three directions")
    if not temperature > 0:
        raise ValueError(f"the fluctuation needs a temperature above 0 K, got {temperature}")
    if trajectory.n_frames < 10:
        raise ValueError(f"{trajectory.n_frames} frames are too few for a fluctuation")
    _refuse_conductors(trajectory)
    factor = (
        4 * np.pi * COULOMB_CONSTANT / (3 * trajectory.volume * BOLTZMANN_CONSTANT * temperature)
    )

    def constant(samples: Int[np.ndarray, " n_chosen"]) -> float:
        return float(1 + factor * dipole[samples].var(axis=0).sum())

    return jackknife(constant, trajectory.n_frames)


def _refuse_conductors(trajectory: Trajectory) -> None:
    """Ions that wander make M grow without end: a conductor has no static dielectric constant."""
    charges = group_charges(trajectory)
    ions = np.abs(charges[trajectory.molecules.wholes]) > NEUTRAL
    if not ions.any():
        return
    moved = (trajectory.scaled[-1] - trajectory.scaled[0]) @ trajectory.cells.mean(axis=0)
    distance = float(np.sqrt((moved[ions] ** 2).sum(axis=1).mean()))
    if distance > BOUND:
        raise ValueError(
            f"ions moved by {distance:.1f} Å: a conductor's dipole grows without bound"
        )
    if abs(charges.sum()) > NEUTRAL:
        raise ValueError(
            f"the cell has a charge of {charges.sum():+.2f} e: its dipole has no origin"
        )
