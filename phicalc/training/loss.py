"""The loss as a sum of named, weighted terms, and the error statistics of an epoch.

Energies are compared per atom, forces per atom, stress as virial per atom (σV/N); these three are
divided by the model's energy scale (the root mean square force of the data), so that weights mean
the same for soft and hard systems. Charges and Born charges are compared in e, dipoles in e·Å, and
polarizabilities per atom in e Å²/V.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from phicalc.data.frames import Labels
from phicalc.data.labels import LABELS
from phicalc.derivatives import Prediction
from phicalc.graph import AtomicGraph, mass_centers, sum_per_structure
from phicalc.training.dataset import Sample, atoms_per_structure
from phicalc.training.objective import LossConfig, TermConfig

#: Factor from eV, Å and e to the unit of reports, and that unit. The last two are no labels: what
#: is left of Poisson's equation, and of the net charge, in heads that solve it on the graph.
UNITS = {
    "energy": (1e3, "meV/atom"),
    "forces": (1e3, "meV/Å"),
    "stress": (1e3, "meV/Å³"),
    "charges": (1e3, "me"),
    "dipole": (1e3, "me·Å"),
    "polarizability": (1e3, "me·Å²/V/atom"),
    "born_charges": (1.0, "e"),
    "residual": (1e3, "me"),
    "net_charge": (1e3, "me"),
}


class LossValue(NamedTuple):
    """Loss of one batch."""

    total: Float64[Tensor, ""]
    """Sum of the weighted terms."""
    terms: dict[str, Float64[Tensor, ""]]
    """The terms before weighting."""


def errors(
    prediction: Prediction, labels: Labels, graph: AtomicGraph
) -> dict[str, Float64[Tensor, "..."]]:
    """Prediction minus label for each label that both sides have; rows are vectors.

    Energies per atom in eV, forces in eV/Å, stress in eV/Å³ (nine columns), charges in e, dipoles
    in e·Å, polarizabilities per atom in e Å²/V and Born charges in e (nine columns each). Entries
    are NaN where a structure has no such label, and infinite where a prediction is not a number: no
    error may pass for a missing label.
    """
    n_atoms = atoms_per_structure(graph)
    found = {
        "energy": (difference(prediction.energy, labels.energy) / n_atoms)[:, None],
        "forces": difference(prediction.forces, labels.forces),
    }
    if prediction.stress is not None:
        found["stress"] = difference(prediction.stress, labels.stress).flatten(1)
    if prediction.charges is not None:
        found["charges"] = difference(prediction.charges, labels.charges)[:, None]
        moments = dipoles(prediction.charges, graph)
        if prediction.atomic_dipoles is not None:
            moments = moments + sum_per_structure(prediction.atomic_dipoles, graph)
        periodic = graph.pbc.any(dim=1, keepdim=True)  # what their dipole is, nobody can say
        found["dipole"] = difference(moments, labels.dipole.masked_fill(periodic, float("nan")))
    if prediction.polarizability is not None:
        error = difference(prediction.polarizability, labels.polarizability)
        found["polarizability"] = error.flatten(1) / n_atoms[:, None]
    if prediction.born_charges is not None:
        error = difference(prediction.born_charges, labels.born_charges)
        found["born_charges"] = error.flatten(1)
    if prediction.residual is not None:
        found["residual"] = prediction.residual
        found["net_charge"] = excess_charge(prediction, graph)[:, None]
    return found


def difference(
    prediction: Float64[Tensor, "*n"], label: Float64[Tensor, "*n"]
) -> Float64[Tensor, "*n"]:
    """Prediction minus label: NaN without a label, infinite without a number to compare with it."""
    found = prediction - label
    return torch.where(found.isnan() & ~label.isnan(), float("inf"), found)


def excess_charge(prediction: Prediction, graph: AtomicGraph) -> Float64[Tensor, " n_structures"]:
    """Return what the charges of each structure sum to beyond its total charge, in e."""
    assert prediction.charges is not None
    return sum_per_structure(prediction.charges, graph) - graph.total_charge


def dipoles(
    charges: Float64[Tensor, " n_atoms"], graph: AtomicGraph
) -> Float64[Tensor, "n_structures 3"]:
    """Dipoles ``Σ q (r − r_com)`` in e·Å about the centre of mass; NaN for periodic structures."""
    centered = graph.positions - mass_centers(graph)[graph.batch]
    moments = sum_per_structure(charges[:, None] * centered, graph)
    return torch.where(graph.pbc.any(dim=1, keepdim=True), float("nan"), moments)


def loss_value(
    found: dict[str, Float64[Tensor, "..."]],
    graph: AtomicGraph,
    config: LossConfig,
    scale: float,
    counts: dict[str, int] | None = None,
) -> LossValue:
    """Weigh the errors of a batch.

    Parameters
    ----------
    found
        From `errors`; every label with a weight must be there.
    graph
        The batch.
    config
        Weights and kinds, at this moment of the run (`LossConfig.at`).
    scale
        The model's energy scale in eV.
    counts
        For a part of a batch: rows with each label in the whole of it (`label_counts`), so that
        the losses of the parts add up to that of the whole.
    """
    terms = {}
    total = graph.positions.new_zeros(())
    for name in LABELS:
        term = getattr(config, name)
        if term.weight:
            error = _scaled(name, found[name], graph, scale)
            terms[name] = measure(error, term, None if counts is None else counts[name])
            total = total + term.weight * terms[name]
    return LossValue(total, terms)


def measure(
    error: Float64[Tensor, "rows columns"], term: TermConfig, count: int | None = None
) -> Float64[Tensor, ""]:
    """Mean over rows of the length (``norm``), its square (``mse``) or Huber's mix of both.

    ``mse`` divides by the number of columns too: it is the usual mean square of components. Where
    a term does not require its label, rows without one (NaN) are left out. With `count` the sum is
    divided by that number of rows.
    """
    rows: int | Tensor = len(error)
    if not term.required:
        there = ~error.isnan().any(dim=1, keepdim=True)
        error = torch.where(there, error, 0.0)
        rows = there.sum().clamp(min=1)
    if term.kind == "mse":
        sizes = error.square().mean(dim=1)
    else:
        sizes = torch.linalg.vector_norm(error, dim=1)
    if term.kind == "huber":
        linear = term.delta * (sizes - 0.5 * term.delta)
        sizes = torch.where(sizes <= term.delta, 0.5 * sizes.square(), linear)
    return sizes.sum() / (rows if count is None else max(1, count))


def label_counts(samples: Sequence[Sample]) -> dict[str, int]:
    """Count the rows (structures or atoms) of samples that have each label, and the samples."""
    counts = {**dict.fromkeys(LABELS, 0), "structures": len(samples)}
    for sample in samples:
        for name in LABELS:
            label = getattr(sample.labels, name)
            counts[name] += int(label.reshape(len(label), -1).isfinite().all(dim=1).sum())
    return counts


def _scaled(
    name: str, error: Float64[Tensor, "rows columns"], graph: AtomicGraph, scale: float
) -> Float64[Tensor, "rows columns"]:
    """Errors in the dimensionless units of the loss (charges and dipoles stay as they are)."""
    if name == "stress":
        volume = torch.linalg.det(graph.cell).abs() / atoms_per_structure(graph)
        return error * (volume / scale)[:, None]
    return error / scale if name in ("energy", "forces") else error


@dataclass
class ErrorSums:
    """Sums of absolute and squared errors per label, in float64, over any number of batches."""

    sums: dict[str, list[float]] = field(default_factory=dict)
    """For each label: number of components, sum of absolute values, sum of squares."""

    def add(self, found: dict[str, Float64[Tensor, "..."]]) -> None:
        """Count the errors of one batch; entries without a label (NaN) are left out."""
        rows = []
        for error in found.values():
            valid = ~error.isnan()
            values = torch.where(valid, error.detach(), 0.0)
            rows.append(
                torch.stack([valid.double().sum(), values.abs().sum(), values.square().sum()])
            )
        # one transfer for all labels
        for name, new in zip(found, torch.stack(rows).tolist(), strict=True):
            self._add_sums(name, new)

    def _add_sums(self, name: str, new: list[float]) -> None:
        if new[0]:
            old = self.sums.get(name, [0.0, 0.0, 0.0])
            self.sums[name] = [a + b for a, b in zip(old, new, strict=True)]

    def numbers(self) -> list[float]:
        """Return all sums in the order of `UNITS`, for `add_numbers`."""
        return [number for name in UNITS for number in self.sums.get(name, [0.0, 0.0, 0.0])]

    def add_numbers(self, numbers: list[float]) -> None:
        """Add what `numbers` of another object, or of several together, returned."""
        for i, name in enumerate(UNITS):
            self._add_sums(name, numbers[3 * i : 3 * i + 3])

    def metrics(self) -> dict[str, float]:
        """MAE and RMSE of each label as ``forces_rmse`` etc., in the units of `UNITS`."""
        result = {}
        for name in UNITS:
            if name in self.sums:
                count, absolute, squared = self.sums[name]
                result[f"{name}_mae"] = UNITS[name][0] * absolute / count
                result[f"{name}_rmse"] = UNITS[name][0] * (squared / count) ** 0.5
        return result
