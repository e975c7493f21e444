"""The cheapest sum that is accurate enough."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from phicalc.electrostatics.sums import accuracy
from phicalc.electrostatics.sums.accuracy import Ions
from phicalc.electrostatics.sums.boundary import complete_box
from phicalc.electrostatics.sums.crowding import crowding
from phicalc.electrostatics.sums.settings import CoulombSettings, SumParameters
from phicalc.electrostatics.sums.splines import smooth_size

#: Nanoseconds for energy and forces, per pair, per atom and k vector, per atom and mesh point it is
#: spread over, per mesh point; and for setting up a mesh (tests/benchmarks/test_coulomb_costs.py).
PAIR_COST, WAVE_COST, SPREAD_COST, POINT_COST, MESH_COST = 105.0, 6.0, 8.0, 18.0, 2e6

#: The same for applying the interaction to charges once more, as iterative solvers do.
PAIR_AGAIN, WAVE_AGAIN, SPREAD_AGAIN, POINT_AGAIN = 4.0, 2.5, 3.0, 25.0

#: Errors may add up, estimates are statistical and cells move: aim at this part of the accuracy.
MARGIN = 0.15

#: Open structures of so many atoms are summed directly without comparing.
_SURELY_DIRECT = 200

#: Points along an axis beyond which a mesh is not considered.
_LONGEST_MESH = 4000

#: Largest volume of an atom in Å³ that error estimates believe in.
_VOLUME_PER_ATOM = 25.0

#: Real-space cutoffs in Å among which the cheapest sum is looked for.
_CUTOFFS = [2.0 * 1.15**step for step in range(17)]

#: Nanoseconds from which on longer cutoffs are tried, if the cell has this many times the volume of
#: its atoms: the waves of an empty cell cost more than all pairs in it.
_COSTLY, _EMPTY = 1e6, 40.0

#: Sums of more waves take minutes and gigabytes whatever the number of atoms.
_MOST_WAVES = 1e6
#: Images of each atom that neighbor searches in a nearly empty cell shall find.
_MOST_IMAGES = 1e4


def choose(
    positions: Float64[Tensor, "n 3"],
    cell: Float64[Tensor, "3 3"],
    pbc: Bool[Tensor, "3"],
    smearing: Float64[Tensor, " n"],
    charge: float,
    settings: CoulombSettings,
    with_mesh: bool = True,
    applications: int = 0,
    narrower: bool = False,
) -> SumParameters:
    """Choose method and parameters for one structure.

    Parameters
    ----------
    positions, cell, pbc
        The structure, in Å.
    smearing
        Gaussian widths in Å.
    charge
        Root mean square charge in e.
    settings
        What is wanted.
    with_mesh
        Whether ``method="auto"`` may choose a mesh.
    applications
        How often the sum is applied to other charges in the same geometry.
    narrower
        Whether the sum shall be as accurate for all Gaussians narrower than `smearing`.

    Raises
    ------
    ValueError
        For a direct sum of a periodic structure, or a box too large for any sum.
    """
    if settings.intended_method == "direct" and bool(pbc.any()):
        raise ValueError(
            f"method='direct' is for open structures, got pbc={pbc.tolist()}: use 'auto'"
        )
    n_atoms = len(positions)
    direct = SumParameters("direct", 0.0, math.inf, 0.0, (0, 0, 0), 0, 0.0)
    if n_atoms == 0 or settings.intended_method == "direct":
        return direct
    if n_atoms <= _SURELY_DIRECT and settings.intended_method == "auto" and not bool(pbc.any()):
        return direct
    ions = survey(positions, cell, pbc, smearing, charge)
    wishes = (settings, with_mesh, applications)
    error = MARGIN * settings.force_accuracy
    alike = not narrower and bool((smearing == smearing[0]).all())

    def sums(cutoffs: list[float]) -> list[tuple[float, SumParameters]]:
        return [
            candidate
            for splitting, cutoff in _splittings(ions, error, alike, settings, cutoffs)
            for candidate in _sums(cell, pbc, ions, splitting, cutoff, *wishes)
        ]

    candidates = sums(_CUTOFFS)
    longer = _longer_cutoffs(cell, pbc, ions, settings)
    if longer and min(candidates, default=(math.inf,))[0] > _COSTLY:
        candidates += sums(longer)
    if not bool(pbc.any()) and settings.intended_method == "auto":
        candidates.append((0.5 * n_atoms**2 * PAIR_COST, direct))
    if not candidates:
        raise ValueError(
            f"no mesh of up to {_LONGEST_MESH} points per axis reaches force_accuracy="
            f"{settings.force_accuracy:g} eV/Å here: ask for less, or use another method"
        )
    cheapest = min(candidates, key=lambda candidate: candidate[0])[1]
    _refuse_too_many_waves(cheapest, cell, pbc)
    return cheapest


def survey(
    positions: Float64[Tensor, "n 3"],
    cell: Float64[Tensor, "3 3"],
    pbc: Bool[Tensor, "3"],
    smearing: Float64[Tensor, " n"],
    charge: float,
    crowding_counts: tuple[float, ...] | None = None,
) -> Ions:
    """Collect the figures of one structure that error estimates need.

    Positions, cell and Gaussian widths are in Å, the root mean square charge in e. The neighbors
    that act together are counted unless `crowding_counts` are known.
    """
    extent = _open_extent(positions, cell, pbc)
    volume = float(torch.linalg.det(complete_box(cell, pbc, max(extent, 2.0))).abs())
    # Atoms that sit together in a large cell make errors like those of dense matter.
    volume = min(volume, _VOLUME_PER_ATOM * len(positions))
    widest = math.sqrt(2) * float(smearing.max())
    if crowding_counts is None:
        crowding_counts = crowding(positions, cell, pbc)
    return Ions(len(positions), volume, max(charge, 1e-3), widest, extent, crowding_counts)


def _sums(
    cell: Float64[Tensor, "3 3"],
    pbc: Bool[Tensor, "3"],
    ions: Ions,
    splitting: float,
    cutoff: float,
    settings: CoulombSettings,
    with_mesh: bool,
    applications: int,
) -> Iterator[tuple[float, SumParameters]]:
    """Cost and parameters of every sum with this splitting that is accurate enough."""
    error, method = MARGIN * settings.force_accuracy, settings.intended_method
    length = 0.0 if bool(pbc.all()) else 1.1 * least_open_length(ions, splitting, error) + 1.0
    edges, volume = measures(complete_box(cell, pbc, length))
    per_pair = PAIR_COST + applications * PAIR_AGAIN
    per_wave = WAVE_COST + applications * WAVE_AGAIN
    per_share = SPREAD_COST + applications * SPREAD_AGAIN
    per_point = POINT_COST + applications * POINT_AGAIN
    sphere = 4 / 3 * math.pi * cutoff**3
    # Among atoms that sit together in a large cell there are no more pairs than atoms and images.
    density = sphere / ions.volume
    if cutoff > _CUTOFFS[-1] and not settings.real_cutoff:
        density = min(density, _images(cell, pbc, cutoff))
    pairs = per_pair * 0.5 * density * ions.n_atoms**2
    if method != "mesh":
        k_cutoff = settings.k_cutoff or accuracy.wave_cutoff(ions, splitting, error)
        waves = per_wave * ions.n_atoms * volume * k_cutoff**3 / (12 * math.pi**2)
        parameters = SumParameters("ewald", splitting, cutoff, k_cutoff, (0, 0, 0), 0, length)
        yield pairs + waves, parameters
    if method == "ewald" or (method == "auto" and not with_mesh):
        return
    for order in [settings.spline_order] if settings.spline_order else accuracy.ORDERS:
        spacing = accuracy.mesh_spacing(ions, splitting, error, order)
        if settings.mesh is None and max(edges) > _LONGEST_MESH * spacing:
            continue
        mesh = settings.mesh
        if mesh is None:
            a, b, c = (smooth_size(max(edge / spacing, order + 1.0)) for edge in edges)
            mesh = (a, b, c)
        waves = MESH_COST + per_share * ions.n_atoms * order**3 + per_point * math.prod(mesh)
        yield pairs + waves, SumParameters("mesh", splitting, cutoff, 0.0, mesh, order, length)


def _longer_cutoffs(
    cell: Float64[Tensor, "3 3"], pbc: Bool[Tensor, "3"], ions: Ions, settings: CoulombSettings
) -> list[float]:
    """Real-space cutoffs in Å up to the size of a box that is nearly empty; none in others."""
    edges, volume = measures(complete_box(cell, pbc, max(2 * ions.extent, 1.0)))
    if volume < _EMPTY * ions.volume or settings.real_cutoff:
        return []
    steps = math.ceil(math.log(max(max(edges) / _CUTOFFS[-1], 1.0)) / math.log(1.3))
    cutoffs = [_CUTOFFS[-1] * 1.3**step for step in range(1, steps + 1)]
    return [cutoff for cutoff in cutoffs if _images(cell, pbc, cutoff) < _MOST_IMAGES]


def _images(cell: Float64[Tensor, "3 3"], pbc: Bool[Tensor, "3"], cutoff: float) -> float:
    """Upper bound of the number of images of an atom within a cutoff in Å, itself included."""
    heights = 1 / torch.linalg.inv(complete_box(cell, pbc, 1.0)).norm(dim=0)
    return float((1 + 2 * cutoff / heights[pbc]).prod())


def _refuse_too_many_waves(
    parameters: SumParameters, cell: Float64[Tensor, "3 3"], pbc: Bool[Tensor, "3"]
) -> None:
    """Raise where not even the cheapest sum fits into memory."""
    edges, _ = measures(complete_box(cell, pbc, parameters.open_length))
    n_waves = math.prod(1 + 2 * (parameters.k_cutoff * edge // (2 * math.pi)) for edge in edges) / 2
    if n_waves > _MOST_WAVES:
        raise ValueError(
            f"the electrostatic sum of this structure needs {n_waves:.1e} waves, since its box is "
            f"{' × '.join(f'{edge:.3g}' for edge in edges)} Å large: look for an atom far away "
            "from the others, or for a cell in the wrong unit"
        )


def _splittings(
    ions: Ions, error: float, alike: bool, settings: CoulombSettings, cutoffs: list[float]
) -> Iterator[tuple[float, float]]:
    """Pairs of a splitting and a real-space cutoff that goes with it."""
    limit = 1 / (math.sqrt(2) * ions.widest)
    if settings.splitting is not None:
        splitting = settings.splitting
        yield splitting, settings.real_cutoff or accuracy.pair_cutoff(ions, splitting, error)
        return
    if alike and settings.real_cutoff is None:
        yield limit, 0.0  # no pairs at all: the long-range part has the width of the charges
    for cutoff in [settings.real_cutoff] if settings.real_cutoff else cutoffs:
        splitting = accuracy.splitting_for(ions, cutoff, error)
        # Gaussians of the charges that reach beyond the cutoff set a limit of their own.
        if splitting > limit and not settings.real_cutoff:
            cutoff = max(cutoff, accuracy.pair_cutoff(ions, splitting, error))
        yield splitting, cutoff


def _open_extent(
    positions: Float64[Tensor, "n 3"], cell: Float64[Tensor, "3 3"], pbc: Bool[Tensor, "3"]
) -> float:
    """Upper bound in Å of the distance of two atoms measured along the open axes only."""
    if bool(pbc.all()) or len(positions) == 0:
        return 0.0
    inverse = torch.linalg.inv(complete_box(cell, pbc, 1.0))
    lateral = (positions @ inverse)[:, ~pbc]
    return float((lateral.amax(0) - lateral.amin(0)).norm())


def least_open_length(ions: Ions, splitting: float, error: float) -> float:
    """Length in Å of a box along open axes from which on nothing sees its own images.

    Two atoms must see the truncated kernel as if it were not: half the length exceeds their
    distance by the reach of the Gaussians into which the kernel is smeared.
    """
    reach = math.sqrt(math.log(max(100 * ions.strength(splitting) / error, math.e))) / splitting
    return 2 * (ions.extent + reach)


def measures(box: Float64[Tensor, "3 3"]) -> tuple[tuple[float, float, float], float]:
    """Lengths of the edges in Å and volume in Å³ of a box."""
    a, b, c = box.norm(dim=1).tolist()
    return (a, b, c), float(torch.linalg.det(box).abs())


def estimate(
    parameters: SumParameters, ions: Ions, box: Float64[Tensor, "3 3"], stretch: float = 1.0
) -> dict[str, float]:
    """Estimated force errors in eV/Å of a sum, by part.

    Parameters
    ----------
    parameters
        Of the sum.
    ions
        The structure (`survey`).
    box
        Its box, with vectors along open axes, in Å.
    stretch
        Largest factor by which the box has grown along any direction since its k vectors were
        chosen.
    """
    if parameters.method == "direct":
        return {}
    edges, volume = measures(box)
    splitting, cutoff = parameters.splitting, parameters.real_cutoff
    errors = {"pairs": accuracy.pair_error(ions, splitting, cutoff) if cutoff else 0.0}
    if parameters.method == "ewald":
        k_cutoff = parameters.k_cutoff / stretch
        errors["waves"] = accuracy.wave_error(ions, splitting, k_cutoff)
    else:
        spacing = max(edge / points for edge, points in zip(edges, parameters.mesh, strict=True))
        order = parameters.spline_order
        errors["mesh"] = accuracy.mesh_error(ions, splitting, spacing, order)
    return errors
