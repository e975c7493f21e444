"""From one number, the accuracy of forces, to the parameters of an electrostatic sum.

The estimates are those of the root mean square force error for charges without order. With
``q² √N`` short for (mean square charge) · √(number of atoms):

- pairs beyond r_c: ``2 k_e q²√N (V r_c)^(-1/2) exp(−α² r_c²)`` (Kolafa & Perram, Mol. Simul. 9,
  351 (1992)); for Gaussian charges α is the smaller one of α and 1/(√2 γ);
- k vectors beyond k_c: ``2√2 k_e q²√N α (V k_c)^(-1/2) exp(−k_c²/4α²)`` (same source);
- a mesh of spacing h with splines of order p: ``k_e q²√N (hα)^p [α √(2π)/V Σ_m a_m (hα)^2m]^½``
  (Deserno & Holm, J. Chem. Phys. 109, 7694 (1998)) for forces from differences of the mesh. Forces
  that are derivatives of the energy lose one order, a factor of about 1.2/hα, and what is left of
  the force of a charge on itself adds ``k_e q² c_p α² (hα)^p`` (both measured:
  tests/benchmarks/test_mesh_error.py).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from phicalc.electrostatics.sums.crowding import neighbors_together
from phicalc.units import COULOMB_CONSTANT

#: Numbers a_m of Deserno & Holm for splines of each order (their table I).
_MESH_COEFFICIENTS = {
    3: (1 / 588, 7 / 1440, 21 / 3872),
    4: (1 / 4320, 3 / 1936, 7601 / 2271360, 143 / 28800),
    5: (1 / 23232, 7601 / 13628160, 143 / 69120, 517231 / 106536960, 106640677 / 11737571328),
    6: (691 / 68140800, 13 / 57600, 47021 / 35512320, 9694607 / 2095994880,
        733191589 / 59609088000, 326190917 / 11700633600),
    7: (1 / 345600, 3617 / 35512320, 745739 / 838397952, 56399353 / 12773376000,
        25091609 / 1560084480, 1755948832039 / 36229939200000, 4887769399 / 37838389248),
}  # fmt: skip

#: Remaining force of a charge on itself, the numbers c_p.
_SELF_FORCE = {3: 1.2e-2, 4: 2.4e-2, 5: 9e-4, 6: 1.2e-3, 7: 9e-5}

#: Factor by which neighbors that act together may enlarge the errors of pairs and waves before the
#: estimates count it: so much is covered by the margin with which parameters are chosen. Errors of
#: meshes need that margin for themselves.
_COVERED = 2.0

#: Orders of splines that can be chosen: mesh points per axis onto which a charge is spread.
ORDERS = tuple(_MESH_COEFFICIENTS)


class Ions(NamedTuple):
    """What the estimates must know of a structure."""

    n_atoms: int
    volume: float
    """Å³ of the periodic cell, or of the region the atoms fill."""
    charge: float
    """Root mean square charge in e."""
    widest: float
    """Largest width γ of a pair, √2 times the largest Gaussian width, in Å."""
    extent: float
    """Largest distance of two atoms along the open axes in Å, or a bound of it."""

    crowding: tuple[float, ...] = ()
    """Neighbors that act together (`crowding.crowding`)."""

    def strength(self, splitting: float, covered: float = _COVERED) -> float:
        """k_e q² √N in eV Å, times the factor for neighbors that act together at this α (1/Å).

        The factor is divided by `covered`, as far as it is larger.
        """
        together = neighbors_together(self.crowding, splitting)
        factor = max(1.0, math.sqrt(1 + together) / covered)
        return factor * COULOMB_CONSTANT * self.charge**2 * math.sqrt(self.n_atoms)


def pair_error(ions: Ions, splitting: float, cutoff: float) -> float:
    """Force error in eV/Å of leaving out pairs beyond a cutoff in Å."""
    decay = _decay(ions, splitting)
    prefactor = 2 * ions.strength(decay) / math.sqrt(ions.volume * cutoff)
    return prefactor * math.exp(-((decay * cutoff) ** 2))


def wave_error(ions: Ions, splitting: float, cutoff: float) -> float:
    """Force error in eV/Å of leaving out k vectors beyond a cutoff in 1/Å."""
    strength = ions.strength(splitting)
    prefactor = 2 * math.sqrt(2) * strength * splitting / math.sqrt(ions.volume * cutoff)
    return prefactor * math.exp(-((cutoff / (2 * splitting)) ** 2))


def mesh_error(ions: Ions, splitting: float, spacing: float, order: int) -> float:
    """Force error in eV/Å of a mesh of this spacing in Å."""
    scaled = spacing * splitting
    series = sum(a * scaled ** (2 * m) for m, a in enumerate(_MESH_COEFFICIENTS[order]))
    root = math.sqrt(splitting * math.sqrt(2 * math.pi) / ions.volume * series)
    others = 1.2 * ions.strength(splitting, covered=1.0) * scaled ** (order - 1) * root
    alone = COULOMB_CONSTANT * ions.charge**2
    itself = alone * _SELF_FORCE[order] * splitting**2 * scaled**order
    return math.hypot(others, itself)


def splitting_for(ions: Ions, cutoff: float, error: float) -> float:
    """Largest decay α in 1/Å for which pairs beyond `cutoff` may be left out."""
    splitting = 3.0 / cutoff
    for _ in range(3):  # the strength depends on it, but hardly
        ratio = 2 * ions.strength(splitting) / math.sqrt(ions.volume * cutoff) / error
        splitting = math.sqrt(math.log(max(ratio, math.e))) / cutoff
    return splitting


def wave_cutoff(ions: Ions, splitting: float, error: float) -> float:
    """Cutoff in 1/Å beyond which k vectors may be left out."""
    return _boundary(
        lambda cutoff: wave_error(ions, splitting, cutoff) <= error,
        bad=1e-3 * splitting,
        good=40.0 * splitting,
    )


def pair_cutoff(ions: Ions, splitting: float, error: float) -> float:
    """Cutoff in Å beyond which pairs may be left out."""
    decay = _decay(ions, splitting)
    return _boundary(
        lambda cutoff: pair_error(ions, splitting, cutoff) <= error,
        bad=1e-3 / decay,
        good=40.0 / decay,
    )


def mesh_spacing(ions: Ions, splitting: float, error: float, order: int) -> float:
    """Spacing in Å of a mesh that is fine enough."""
    return _boundary(
        lambda spacing: mesh_error(ions, splitting, spacing, order) <= error,
        bad=2.0 / splitting,
        good=1e-4 / splitting,
    )


def _decay(ions: Ions, splitting: float) -> float:
    """Decay of the farthest-reaching pairs in 1/Å: of the splitting, or of the widest charges."""
    return min(splitting, 1 / (math.sqrt(2) * ions.widest))


def _boundary(enough: Callable[[float], bool], *, bad: float, good: float) -> float:
    """Bisect between a value that is not enough and one that is; returns one that is."""
    for _ in range(24):
        middle = 0.5 * (bad + good)
        bad, good = (bad, middle) if enough(middle) else (middle, good)
    return good
