"""Errors of a model on labelled structures."""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from jaxtyping import Float64, Shaped

from phicalc.checkpoint import load_model, resolve_device, resolve_dtype
from phicalc.data.config import KeysConfig
from phicalc.data.files import find_data_file, read_frames
from phicalc.data.frames import label_atoms
from phicalc.data.isolated import without_isolated_atoms
from phicalc.data.names import keys_without_values
from phicalc.derivatives import Prediction, predict
from phicalc.potential import Potential
from phicalc.response import born_effective_charges, polarizability
from phicalc.state import write_atomically
from phicalc.training.dataset import (
    Sample,
    atoms_per_structure,
    batch_plan,
    batches,
    make_samples,
    prepare_samples,
)
from phicalc.training.loss import UNITS, ErrorSums, difference, errors
from phicalc.training.omissions import is_compared, is_labelled, omissions
from phicalc.training.plots import plot_parity


class Evaluation(NamedTuple):
    """Errors of a potential on a set of structures."""

    metrics: dict[str, float]
    """MAE and RMSE of each label, e.g. ``forces_rmse``, in the units of `phicalc.training.loss`."""
    forces_rmse_by_element: dict[str, float]
    """In meV/Å."""
    charges_by_element: dict[str, dict[str, float]]
    """Mean, standard deviation, smallest and largest predicted charge in e."""
    parity: dict[str, tuple[Float64[np.ndarray, "_"], Float64[np.ndarray, "_"]]]
    """Labels and predictions for a parity plot (eV/atom about the mean, eV/Å, e)."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the points of the plot, as plain types."""
        return {
            "metrics": self.metrics,
            "units": {name: UNITS[name][1] for name in UNITS if f"{name}_mae" in self.metrics},
            "forces_rmse_by_element": self.forces_rmse_by_element,
            "charges_by_element": self.charges_by_element,
        }


def evaluate_samples(
    potential: Potential, samples: Sequence[Sample], batch_size: int = 4
) -> Evaluation:
    """Compare a potential with the labels of prepared samples.

    Stress is compared where there is a label and the cell is periodic in three dimensions.
    """
    return evaluate_members([potential], [samples], batch_size)


def evaluate_members(
    members: Sequence[Potential], prepared: Sequence[Sequence[Sample]], batch_size: int = 4
) -> Evaluation:
    """Compare the mean of some potentials with the labels of samples.

    Parameters
    ----------
    members
        The potentials.
    prepared
        For each of them the same samples, prepared for it.
    batch_size
        Structures evaluated at a time.
    """
    samples = prepared[0]
    with_stress = [i for i, sample in enumerate(samples) if _is_wanted("stress", sample)]
    without = [i for i in range(len(samples)) if i not in set(with_stress)]
    sums, rows = ErrorSums(), []
    for group, stress in ((with_stress, True), (without, False)):
        plan = [[group[i] for i in batch] for batch in batch_plan(len(group), batch_size)]
        streams = [
            batches(own, plan, potential.device)
            for potential, own in zip(members, prepared, strict=True)
        ]
        for parts in zip(*streams, strict=True):
            found = [
                predict(potential, part.graph, stress=stress)
                for potential, part in zip(members, parts, strict=True)
            ]
            prediction = found[0] if len(found) == 1 else _mean(found)
            sums.add(errors(prediction, parts[0].labels, parts[0].graph))
            rows.append(_points(prediction, parts[0]))
    if len(members) == 1:
        _add_responses(sums, members[0], samples)
    points = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    return Evaluation(sums.metrics(), _forces_by_element(points), _charges(points), _parity(points))


def _mean(predictions: Sequence[Prediction]) -> Prediction:
    """Return the mean of predictions for one batch, of everything that all of them have."""
    means: dict[str, Any] = {}
    for name in ("energy", "atomic_energies", "forces", "stress", "charges", "atomic_dipoles"):
        values = [getattr(prediction, name) for prediction in predictions]
        means[name] = None if any(v is None for v in values) else torch.stack(values).mean(0)
    return Prediction(**means, terms={})


def _add_responses(sums: ErrorSums, potential: Potential, samples: Sequence[Sample]) -> None:
    """Count errors of Born charges and polarizabilities, one labelled structure after the other.

    Structures for which the potential defines none are left out.
    """
    for sample in samples:
        graph, labels = sample.graph, sample.labels
        if _is_wanted("born_charges", sample, potential):
            found = born_effective_charges(potential, graph.to(potential.device)).cpu()
            sums.add({"born_charges": difference(found, labels.born_charges).flatten(1)})
        if _is_wanted("polarizability", sample, potential):
            found = polarizability(potential, graph.to(potential.device)).cpu()
            error = difference(found, labels.polarizability).flatten(1)
            sums.add({"polarizability": error / graph.n_atoms})


def _is_wanted(name: str, sample: Sample, *members: Potential) -> bool:
    """Whether a structure has a label, and potentials something to compare it with."""
    return is_labelled(getattr(sample.labels, name)) and is_compared(name, sample, members)


def _points(prediction: Prediction, batch: Sample) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Labels and predictions of a batch as arrays."""
    n_atoms = atoms_per_structure(batch.graph)
    charges = prediction.charges
    if charges is None:
        charges = torch.full_like(batch.labels.charges, float("nan"))
    counts = n_atoms.new_zeros(len(n_atoms), len(chemical_symbols))
    place = batch.graph.batch, batch.graph.atomic_numbers
    tensors = {
        "number": batch.graph.atomic_numbers,
        "fractions": counts.index_put(place, n_atoms.new_ones(()), accumulate=True)
        / n_atoms[:, None],
        "energy": torch.stack([batch.labels.energy / n_atoms, prediction.energy / n_atoms], dim=1),
        "forces": torch.stack([batch.labels.forces, prediction.forces], dim=1),
        "charges": torch.stack([batch.labels.charges, charges], dim=1),
    }
    return {key: tensor.cpu().numpy() for key, tensor in tensors.items()}


def _forces_by_element(points: dict[str, Shaped[np.ndarray, "..."]]) -> dict[str, float]:
    """Root mean square force error of each element in meV/Å."""
    result = {}
    difference = points["forces"][:, 1] - points["forces"][:, 0]
    for number in np.unique(points["number"]):
        chosen = difference[points["number"] == number]
        chosen = chosen[np.isfinite(chosen).all(axis=1)]
        if len(chosen):
            rmse = float(np.sqrt(np.mean(chosen**2)))
            result[chemical_symbols[number]] = UNITS["forces"][0] * rmse
    return result


def _charges(points: dict[str, Shaped[np.ndarray, "..."]]) -> dict[str, dict[str, float]]:
    """Statistics of the predicted charges of each element in e."""
    result = {}
    charges = points["charges"][:, 1]
    for number in np.unique(points["number"][np.isfinite(charges)]):
        chosen = charges[points["number"] == number]
        result[chemical_symbols[number]] = {
            "mean": float(chosen.mean()),
            "std": float(chosen.std()),
            "min": float(chosen.min()),
            "max": float(chosen.max()),
        }
    return result


def _parity(
    points: dict[str, Shaped[np.ndarray, "..."]],
) -> dict[str, tuple[Float64[np.ndarray, "_"], Float64[np.ndarray, "_"]]]:
    """Finite pairs of label and prediction; energies about what the composition explains."""
    result = {}
    for name in ("energy", "forces", "charges"):
        label, predicted = points[name][:, 0].ravel(), points[name][:, 1].ravel()
        finite = np.isfinite(label) & np.isfinite(predicted)
        if finite.any():
            shift = 0.0
            if name == "energy":
                fractions = points["fractions"][finite]
                shift = fractions @ np.linalg.lstsq(fractions, label[finite], rcond=None)[0]
            result[name] = (label[finite] - shift, predicted[finite] - shift)
    return result


def evaluate_model(
    model: str | Path | Potential | Sequence[str | Path | Potential],
    data: str | Path | Sequence[Atoms],
    output: str | Path | None = None,
    *,
    keys: KeysConfig = KeysConfig(),  # noqa: B008 - frozen
    batch_size: int = 4,
    device: str = "auto",
    dtype: str | None = None,
    max_frames: int | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Print, save and return the errors of a model on labelled structures.

    Parameters
    ----------
    model
        Name, folder or file of a model as for `phicalc.checkpoint.load_model`, or a potential;
        several of them are a committee, whose mean is compared.
    data
        Extended XYZ file (plain or compressed), ``.traj``, ``.db``, ``.json`` or another file that
        `ase.io.read` understands; or structures with labels. Isolated atoms
        (``config_type=IsolatedAtom``) are left out.
    output
        Folder for ``evaluation.json`` and ``parity.png``; None saves nothing.
    keys
        Names of the labels in the data.
    batch_size
        Structures evaluated at a time.
    device, dtype
        Where and in which precision; by default as the model was saved.
    max_frames
        Use only the first frames.
    report
        Receives the table of results.

    Returns
    -------
    dict
        ``metrics`` (MAE and RMSE by label and of Born charges), ``units``,
        ``forces_rmse_by_element`` (meV/Å), ``charges_by_element`` (e) and ``n_structures``.

    Raises
    ------
    ValueError
        For data without labels, without structures, or with elements the model does not know.
    """
    models = [model] if isinstance(model, str | Path | Potential) else list(model)
    members = [_resolve(one, device, dtype) for one in models]
    if isinstance(data, str | Path):
        frames = read_frames(find_data_file(data), keys)
    else:
        frames = [label_atoms(a, keys, origin=f"structure {i}") for i, a in enumerate(data)]
    structures, isolated = without_isolated_atoms(frames[:max_frames])
    if structures and isolated:
        report(f"{len(isolated)} isolated atoms left out")
    frames = structures or isolated
    if not frames:
        raise ValueError("there are no structures to evaluate; `data` is empty")
    elements = set.intersection(*(set(member.elements) for member in members))
    for frame in frames:
        unknown = set(frame.atoms.numbers.tolist()) - elements
        if unknown:
            raise ValueError(
                f"{frame.origin}: the model does not know "
                f"{', '.join(chemical_symbols[z] for z in sorted(unknown))}; it knows "
                f"{', '.join(chemical_symbols[z] for z in sorted(elements))}"
            )
    prepared = [prepare_samples(make_samples(frames, member.cutoff), member) for member in members]
    evaluation = evaluate_members(members, prepared, batch_size)
    if not evaluation.metrics:
        raise ValueError("the structures have no labels to compare with; check `keys`")
    result = {"n_structures": len(frames), **evaluation.to_dict()}
    unfound = keys_without_values([frame.atoms for frame in frames], keys)
    for line in [*table(evaluation), *omissions(members, prepared[0]), *unfound]:
        report(line)
    if output is not None:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "evaluation.json", (json.dumps(result, indent=2) + "\n").encode())
        plot_parity(evaluation.parity, folder / "parity.png")
        report(f"wrote {folder / 'evaluation.json'} and {folder / 'parity.png'}")
    return result


def _resolve(model: str | Path | Potential, device: str, dtype: str | None) -> Potential:
    """Load a model, or move a potential to where it is wanted."""
    if not isinstance(model, Potential):
        return load_model(model, device=device, dtype=dtype)[0]
    target = resolve_device(device), model.dtype if dtype is None else resolve_dtype(dtype)
    if target == (model.device, model.dtype):
        return model
    return deepcopy(model).to(*target)  # that of the caller stays as it is


def table(evaluation: Evaluation) -> list[str]:
    """Lines of a table for people."""
    lines = [f"{'':12} {'MAE':>10} {'RMSE':>10}"]
    for name in UNITS:
        if f"{name}_mae" in evaluation.metrics:
            mae, rmse = (evaluation.metrics[f"{name}_{kind}"] for kind in ("mae", "rmse"))
            lines.append(f"{name:12} {mae:10.3f} {rmse:10.3f} {UNITS[name][1]}")
    for symbol, rmse in evaluation.forces_rmse_by_element.items():
        lines.append(f"forces on {symbol}: RMSE {rmse:.2f} meV/Å")
    for symbol, q in evaluation.charges_by_element.items():
        lines.append(
            f"charge of {symbol}: {q['mean']:+.3f} ± {q['std']:.3f} e, "
            f"from {q['min']:+.3f} to {q['max']:+.3f}"
        )
    return lines
