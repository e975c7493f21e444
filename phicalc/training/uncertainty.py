"""Fit and calibrate the last-layer uncertainty of a trained potential (`phicalc.uncertainty`)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from phicalc.derivatives import predict
from phicalc.graph import sum_per_structure
from phicalc.potential import Potential
from phicalc.training.dataset import Sample, batch_plan, batches
from phicalc.uncertainty import LastLayerUncertainty

#: Added to the correlation matrix of the features: a direction of which the training set has less
#: than this part of the variance is unknown, and below it single precision is noise.
RIDGE = 1e-6
#: Part of the training frames that lie within the bounds.
INSIDE = 0.999
#: Factor on these bounds: the largest of a few hundred frames is not the largest of all.
MARGIN = 1.1


class Reach(NamedTuple):
    """Distances from the training data, and errors, over a set of structures."""

    element: Int64[np.ndarray, " n_atoms"]
    """Of each atom, counted from 0."""
    structure: Int64[np.ndarray, " n_atoms"]
    """Of each atom."""
    alone: Float64[np.ndarray, " n_atoms"]
    """Distance s of each atom, a number."""
    together: Float64[np.ndarray, " n_structures"]
    """Distance s of the sum over each structure, a number."""
    energy: Float64[np.ndarray, " n_structures"]
    """Error of each energy in eV; NaN without a label."""
    forces: Float64[np.ndarray, "n_atoms 3"]
    """Error of each force in eV/Å; NaN without a label, or where it was not asked for."""

    def without_oneself(self) -> "Reach":
        """Return the distances that atoms of the training set had if they were not part of it.

        A sample of leverage h, its squared distance, has h/(1 − h) for the fit without it.
        """
        alone = self.alone / np.sqrt(np.maximum(1 - self.alone**2, 1e-3))
        return self._replace(alone=alone)


class Calibration(NamedTuple):
    """Errors and standard deviations over a set of structures."""

    energy_error: Float64[np.ndarray, " n_energies"]
    """In eV, like `energy_std`."""
    energy_std: Float64[np.ndarray, " n_energies"]
    """In eV."""
    force_error: Float64[np.ndarray, "n_forces 3"]
    """In eV/Å, like `force_std`, of which the squares are sums over components."""
    force_std: Float64[np.ndarray, " n_forces"]
    """In eV/Å."""
    farthest: Float64[np.ndarray, " n_structures"]
    """Distance of the outermost atom of each structure; beyond 1 it is outside."""

    def metrics(self) -> dict[str, float]:
        """Return coverages, rank correlations, and the part of structures that are outside.

        ``energy_within_1std`` and so on are fractions, of a normal distribution 0.683 and 0.954;
        for forces they are those of components. ``…_rank`` is Spearman's correlation of error and
        standard deviation.
        """
        component = np.abs(self.force_error) / (self.force_std[:, None] / np.sqrt(3))
        sizes = np.linalg.norm(self.force_error, axis=1)
        found = {
            **_within("energy", np.abs(self.energy_error) / self.energy_std),
            **_within("forces", component.ravel()),
            "energy_rank": rank_correlation(np.abs(self.energy_error), self.energy_std),
            "forces_rank": rank_correlation(sizes, self.force_std),
            "outside": float(np.mean(self.farthest > 1)),
        }
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def line(self) -> str:
        """Return the same in one line for people."""
        found = self.metrics()
        parts = [
            f"{kind} within 1σ {found[f'{kind}_within_1std']:.0%}, 2σ "
            f"{found[f'{kind}_within_2std']:.0%}"
            for kind in ("energy", "forces")
            if f"{kind}_within_1std" in found
        ]
        if "forces_rank" in found:
            parts.append(f"rank correlation of σ and error of forces {found['forces_rank']:.2f}")
        return "; ".join([*parts, f"{found['outside']:.1%} of the structures outside"])

    def by_title(
        self,
    ) -> dict[str, tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]]:
        """Return sizes of errors and standard deviations, for `plot_deviations`."""
        return {
            "Energy of a structure (eV)": (np.abs(self.energy_error), self.energy_std),
            "Force on an atom (eV/Å)": (
                np.linalg.norm(self.force_error, axis=1),
                self.force_std,
            ),
        }


def fit_uncertainty(
    potential: Potential, train: Sequence[Sample], valid: Sequence[Sample], batch_size: int = 4
) -> Calibration:
    """Give a trained potential its uncertainty; return how errors and error bars compare.

    Parameters
    ----------
    potential
        Gets a `phicalc.uncertainty.LastLayerUncertainty`, or a new one; all else stays.
    train
        Prepared samples that it was trained on.
    valid
        Prepared samples with labels, whose errors the standard deviations are scaled to. Without
        any, errors on `train` are taken, which are too small.
    batch_size
        Structures evaluated at a time.

    Returns
    -------
    calibration
        Of the validation samples.

    Raises
    ------
    ValueError
        If there is no training sample.
    """
    if not train:
        raise ValueError("an uncertainty needs the structures that the model was trained on")
    before = potential.training
    potential.eval()
    try:
        module = LastLayerUncertainty(potential.n_last, len(potential.elements))
        potential.uncertainty = module.to(device=potential.device, dtype=potential.dtype)
        module.whitening.copy_(_inverse_root(_second_moments(potential, train, batch_size)))
        known = _reach(potential, train, batch_size, forces=not valid).without_oneself()
        judge = _reach(potential, valid, batch_size) if valid else known
        _calibrate(module, judge)
        _set_bounds(module, [known, judge] if valid else [known])
        return _compare(module, judge)
    finally:
        potential.train(before)


def calibration(
    potential: Potential, samples: Sequence[Sample], batch_size: int = 4
) -> Calibration:
    """Return errors and standard deviations of a potential with an uncertainty.

    Parameters
    ----------
    potential
        In any mode.
    samples
        Prepared samples with labels.
    batch_size
        Structures evaluated at a time.

    Raises
    ------
    ValueError
        If the potential has no uncertainty.
    """
    if potential.uncertainty is None:
        raise ValueError("this potential has no uncertainty: see fit_uncertainty")
    before = potential.training
    potential.eval()
    try:
        return _compare(potential.uncertainty, _reach(potential, samples, batch_size))
    finally:
        potential.train(before)


@torch.no_grad()
def _second_moments(
    potential: Potential, samples: Sequence[Sample], batch_size: int
) -> Float64[Tensor, "n_last n_last"]:
    """Return Σ φ φᵀ over all atoms."""
    total = torch.zeros(potential.n_last, potential.n_last, dtype=torch.float64)
    for batch in batches(samples, batch_plan(len(samples), batch_size), potential.device):
        features = potential(batch.graph).last_features.double()
        total += (features.T @ features).cpu()
    return total


def _inverse_root(moments: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    """Return W with W Wᵀ = K⁻¹, where K has a ridge relative to each feature's own size."""
    size = moments.diagonal().sqrt()
    size = torch.where(size > 0, size, 1.0)
    correlation = moments / (size[:, None] * size)
    identity = torch.eye(len(moments)).to(moments)
    factor = torch.linalg.cholesky(correlation + RIDGE * identity)
    root = torch.linalg.solve_triangular(factor, identity, upper=False).T
    return root / size[:, None]


def _reach(
    potential: Potential, samples: Sequence[Sample], batch_size: int, forces: bool = True
) -> Reach:
    """Collect distances and errors over samples."""
    parts = list(_reach_of_batches(potential, samples, batch_size, forces))
    offsets = np.cumsum([0, *(len(part.together) for part in parts[:-1])])
    moved = [p._replace(structure=p.structure + n) for p, n in zip(parts, offsets, strict=True)]
    return Reach(*(np.concatenate(columns) for columns in zip(*moved, strict=True)))


def _reach_of_batches(
    potential: Potential, samples: Sequence[Sample], batch_size: int, forces: bool
) -> Iterator[Reach]:
    """Yield distances and errors of each batch."""
    module = potential.uncertainty
    assert module is not None
    for batch in batches(samples, batch_plan(len(samples), batch_size), potential.device):
        graph, labels = batch
        with torch.set_grad_enabled(forces):
            found = predict(potential, graph) if forces else potential(graph)
        assert found.last_features is not None  # in evaluation mode
        white = module.whitened(found.last_features)
        force_error = found.forces - labels.forces if forces else torch.full_like(
            graph.positions, torch.nan
        )  # fmt: skip
        columns = (
            potential.element_of_number[graph.atomic_numbers],
            graph.batch,
            torch.linalg.vector_norm(white, dim=1),
            torch.linalg.vector_norm(sum_per_structure(white, graph), dim=1),
            found.energy.detach() - labels.energy,
            force_error,
        )
        yield Reach(*(column.detach().cpu().numpy() for column in columns))


def _calibrate(module: LastLayerUncertainty, reach: Reach) -> None:
    """Scale standard deviations so that errors have the mean square that these let expect.

    That is the factor of largest likelihood. An element without errors gets the common factor.
    """
    energy = _factor(reach.energy**2, reach.together)
    squares = (reach.forces**2).sum(axis=1)
    common = _factor(squares, reach.alone)
    module.energy_scale.fill_(energy)
    for number in range(len(module.force_scales)):
        own = reach.element == number
        module.force_scales[number] = _factor(squares[own], reach.alone[own]) or common


def _factor(squares: Float64[np.ndarray, " n"], distances: Float64[np.ndarray, " n"]) -> float:
    """Return the root mean square of error over distance; 0 without any."""
    good = np.isfinite(squares) & (distances > 0)
    return float(np.sqrt(np.mean(squares[good] / distances[good] ** 2))) if good.any() else 0.0


def _set_bounds(module: LastLayerUncertainty, known: Sequence[Reach]) -> None:
    """Set the largest distance of each element such that frames, not atoms, are within it."""
    element = np.concatenate([reach.element for reach in known])
    alone = np.concatenate([reach.alone for reach in known])
    largest = np.array(
        [
            np.quantile(alone[element == number], INSIDE) if (element == number).any() else 0.0
            for number in range(len(module.bounds))
        ]
    )
    module.bounds.copy_(torch.from_numpy(np.maximum(largest, np.finfo(np.float32).tiny)))
    farthest = np.concatenate([_farthest(module, reach) for reach in known])
    module.bounds.mul_(MARGIN * float(np.quantile(farthest, INSIDE, method="higher")))


def _farthest(module: LastLayerUncertainty, reach: Reach) -> Float64[np.ndarray, " n_structures"]:
    """Return the distance of the outermost atom of each structure, over its bound."""
    bounds = module.bounds.double().cpu().numpy()
    found = np.zeros(len(reach.together))
    np.maximum.at(found, reach.structure, reach.alone / bounds[reach.element])
    return found


def _compare(module: LastLayerUncertainty, reach: Reach) -> Calibration:
    """Return errors beside standard deviations, where there are labels."""
    scales = module.force_scales.double().cpu().numpy()
    energy_std = float(module.energy_scale) * reach.together
    force_std = scales[reach.element] * reach.alone
    energies = np.isfinite(reach.energy) & (energy_std > 0)
    forces = np.isfinite(reach.forces).all(axis=1) & (force_std > 0)
    return Calibration(
        reach.energy[energies],
        energy_std[energies],
        reach.forces[forces],
        force_std[forces],
        _farthest(module, reach),
    )


def _within(name: str, deviations: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Return the parts of errors within one and two standard deviations."""
    if not len(deviations):
        return {}
    return {f"{name}_within_{n}std": float(np.mean(deviations <= n)) for n in (1, 2)}


def rank_correlation(one: Float64[np.ndarray, " n"], other: Float64[np.ndarray, " n"]) -> float:
    """Return Spearman's rank correlation of two numbers of each sample; NaN for less than three."""
    if len(one) < 3:
        return float("nan")
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    table = np.asarray(np.corrcoef(np.array(ranks)))
    return float(table[0, 1])
