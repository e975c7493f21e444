"""Make the record of a domain from labeled frames."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols
from jaxtyping import Float64
from torch import Tensor

from phicalc.data.frames import LabelledAtoms
from phicalc.domain.environments import environments_of_frames
from phicalc.domain.record import Domain
from phicalc.graph import AtomicGraph, edge_vectors
from phicalc.units import GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM

_DIGITS = 4


def domain_of_frames(
    frames: Sequence[LabelledAtoms],
    graphs: Sequence[AtomicGraph],
    *,
    stress: bool,
    source: str = "",
) -> Domain:
    """Return what frames cover.

    Parameters
    ----------
    frames
        At least one.
    graphs
        Those of the frames, with the cutoff of the model.
    stress
        Whether stress has a weight in the loss; it counts as trained if a frame has some, too.
    source
        Which frames these are, if not the training frames.
    """
    structures = [frame.atoms for frame in frames]
    periodic = [bool(atoms.pbc.any()) for atoms in structures]
    labels = [frame.labels for frame in frames]
    numbers = sorted({int(z) for atoms in structures for z in atoms.numbers})
    return Domain(
        frames=len(frames),
        source=source,
        elements=tuple(chemical_symbols[z] for z in numbers),
        environments=tuple(sorted(environments_of_frames(graphs))),
        nearest_distances=nearest_distances(graphs),
        charges=_range(frame.total_charge for frame in frames),
        periodic=any(periodic),
        isolated=not all(periodic),
        closed_shell=_closed(frames),
        stress=stress and any(bool(each.stress.isfinite().all()) for each in labels),
        densities=_range(density_of(atoms) for atoms in structures if atoms.pbc.all()),
        largest_force=_largest(each.forces.norm(dim=1) for each in labels),
        largest_charge=_largest(each.charges.abs() for each in labels),
        temperatures=_temperatures(structures),
    )


def density_of(atoms: Atoms) -> float:
    """Return the density in g/cm³ with standard masses; the cell must have a volume."""
    mass = atomic_masses[atoms.numbers].sum()
    return float(mass / atoms.cell.volume * GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM)


def _range(values: Iterable[float]) -> tuple[float, float] | None:
    """Return the smallest and the largest of some values, rounded outwards; None if none."""
    found = list(values)
    if not found:
        return None
    scale = 10.0**_DIGITS
    return float(np.floor(min(found) * scale) / scale), float(np.ceil(max(found) * scale) / scale)


def _largest(values: Iterable[Float64[Tensor, " n"]]) -> float | None:
    """Return the largest finite number among tensors with NaN for missing labels; None if none."""
    found = torch.cat([torch.zeros(0, dtype=torch.float64), *values])
    found = found[found.isfinite()]
    return round(float(found.max()), _DIGITS) if len(found) else None


def _closed(frames: Iterable[LabelledAtoms]) -> bool | None:
    """Return whether all frames have an even number of electrons; charges may be fractions."""
    electrons = np.array([frame.atoms.numbers.sum() - frame.total_charge for frame in frames])
    return bool((np.abs(electrons % 2 - 1) > 1e-6).all())


def nearest_distances(graphs: Iterable[AtomicGraph]) -> dict[str, float]:
    """Return the smallest distance in Å of each pair of elements within the cutoff, by ``H-O``."""
    smallest = torch.full((119, 119), float("inf"), dtype=torch.float64)
    for graph in graphs:
        first, second = graph.atomic_numbers[graph.edge_index]
        pairs = torch.minimum(first, second) * 119 + torch.maximum(first, second)
        lengths = edge_vectors(graph).norm(dim=1)
        smallest.view(-1).scatter_reduce_(0, pairs, lengths, "amin")
    return {
        f"{chemical_symbols[i]}-{chemical_symbols[j]}": round(float(smallest[i, j]), _DIGITS)
        for i, j in smallest.isfinite().nonzero().tolist()
    }


def _temperatures(structures: Iterable[Atoms]) -> tuple[float, float] | None:
    """Return the range of ``info["temperature"]`` in K over the frames that have one."""
    values = (atoms.info.get("temperature") for atoms in structures)
    return _range(float(v) for v in values if isinstance(v, int | float | np.number) and v > 0)
