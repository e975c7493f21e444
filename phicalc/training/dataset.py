"""Training, validation and test sets: splitting frames, graphs made once, batches."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from phicalc.data.config import DataConfig
from phicalc.data.files import file_digest, find_data_file, read_frames
from phicalc.data.frames import LabelledAtoms, Labels, require_labels, warn_of_duplicates
from phicalc.data.isolated import energies_of_elements, without_isolated_atoms
from phicalc.data.labels import LABELS
from phicalc.data.names import warn_of_keys
from phicalc.data.splitting import split_indices
from phicalc.graph import AtomicGraph, collate, edge_vectors, from_ase
from phicalc.placement import on_cpu
from phicalc.potential import Potential
from phicalc.structures import COINCIDENCE_DISTANCE
from phicalc.training.objective import LossConfig


class Sample(NamedTuple):
    """One structure as a graph with its labels; also a batch of them (see `join`)."""

    graph: AtomicGraph
    labels: Labels

    def to(self, device: torch.device | str) -> "Sample":
        """Return it with every tensor on `device`."""
        return Sample(self.graph.to(device), self.labels.to(device))


class Splits(NamedTuple):
    """The frames of a run, divided."""

    train: list[LabelledAtoms]
    valid: list[LabelledAtoms]
    test: list[LabelledAtoms]
    record: dict[str, Any]
    """What the model's card says about the data: files, digests, numbers, indices."""
    element_energies: dict[str, float] = {}
    """Energy in eV of each element with an isolated atom in the files."""


def required_labels(loss: LossConfig) -> tuple[str, ...]:
    """Labels that a loss gives a weight and that every frame must have."""
    terms = {name: getattr(loss, name) for name in LABELS}
    return tuple(name for name, term in terms.items() if term.used and term.required)


def load_splits(config: DataConfig, loss: LossConfig, base: Path | None = None) -> Splits:
    """Read the data files and divide their frames as the configuration says.

    Parameters
    ----------
    config
        Files and split.
    loss
        Says which labels every frame must have.
    base
        Folder that relative file names start from (see `find_data_file`).

    Raises
    ------
    FileNotFoundError
        When a file is nowhere to be found.
    ValueError
        For frames without the labels needed, and splits that leave nothing to train on.
    """
    frames, files, elements = _read_roles(config, required_labels(loss), base)
    everything = frames["train"] + frames["valid"] + frames["test"]
    warn_of_duplicates(everything)
    warn_of_keys([frame.atoms for frame in everything], config.keys)
    pool = frames["train"][: config.max_frames]
    valid, test = split_indices(config, pool)
    kept = sorted(set(range(len(pool))) - set(valid) - set(test))
    if kept and config.train_fraction < 1:
        drawn = np.random.default_rng(config.split_seed).permutation(kept)
        kept = sorted(drawn[: max(1, round(config.train_fraction * len(kept)))].tolist())
    if not kept:
        raise ValueError(
            f"the split leaves no training frame: {len(pool)} frames, of which {len(valid)} are "
            f"for validation and {len(test)} for test"
        )
    record = {
        "files": {role: entries for role, entries in files.items() if entries},
        "split": {"method": config.split, "valid_indices": valid, "test_indices": test},
    }
    splits = Splits(
        [pool[i] for i in kept],
        frames["valid"] + [pool[i] for i in valid],
        frames["test"] + [pool[i] for i in test],
        record,
        elements,
    )
    record["counts"] = {"train": len(kept), "valid": len(splits.valid), "test": len(splits.test)}
    return splits


def _read_roles(
    config: DataConfig, required: Sequence[str], base: Path | None
) -> tuple[
    dict[str, list[LabelledAtoms]], dict[str, list[dict[str, Any]]], dict[str, float]
]:  # fmt: skip
    """Read all files: frames and records of files by role, and energies of isolated atoms in eV."""
    frames: dict[str, list[LabelledAtoms]] = {}
    files: dict[str, list[dict[str, Any]]] = {}
    isolated = []
    for role in ("train", "valid", "test"):
        frames[role], files[role] = [], []
        for name in getattr(config, role):
            path = find_data_file(name, base)
            found = read_frames(path, config.keys)
            structures, atoms = without_isolated_atoms(found)
            require_labels(structures, config.keys, required)
            frames[role] += structures
            isolated += atoms
            entry = {"name": path.name, "sha256": file_digest(path), "frames": len(found)}
            files[role].append(entry)
    return frames, files, energies_of_elements(isolated)


def check_labels_make_sense(frames: Sequence[LabelledAtoms], loss: LossConfig) -> None:
    """Refuse labels that are not defined for a structure's boundary conditions, or nowhere there.

    Raises
    ------
    ValueError
        When stress is trained on without a cell that is periodic in three dimensions, or dipoles
        in a periodic one (where the label is not required: only if such a frame has it); when no
        frame at all has a label with a weight.
    """
    for frame in frames:
        pbc = frame.atoms.pbc
        if _counts(frame, loss, "stress") and not pbc.all():
            raise ValueError(
                f"{frame.origin}: stress is trained on, but pbc is {pbc.tolist()}; stress is "
                "defined only for cells periodic in three dimensions. Set loss.stress.weight to 0, "
                "remove the label and set loss.stress.required to false, or leave such frames out"
            )
        if _counts(frame, loss, "dipole") and pbc.any():
            raise ValueError(
                f"{frame.origin}: dipoles are trained on, but pbc is {pbc.tolist()}; a periodic "
                "cell has no unique dipole. Set loss.dipole.weight to 0, remove the label and set "
                "loss.dipole.required to false, or leave such frames out"
            )
    for name in (name for name in LABELS if getattr(loss, name).used):
        if not any(getattr(frame.labels, name).isfinite().any() for frame in frames):
            raise ValueError(
                f"loss.{name} has a weight, but no frame has this label; set its weight to 0, or "
                f"data.keys.{name} to the right key"
            )


def check_responses(samples: Sequence[Sample], loss: LossConfig, potential: Potential) -> None:
    """Refuse responses in the loss that a potential does not have.

    Raises
    ------
    ValueError
        For polarizabilities of charges that no field moves or that do not minimize the whole
        energy, for Born charges of charges that have no derivatives, and for either in periodic
        cells where the moment of these charges is not defined.
    """
    head = potential.head
    flows = head.charges_flow and head.is_stationary
    for name, defined in (("polarizability", flows), ("born_charges", head.charges_differentiable)):
        if not getattr(loss, name).used:
            continue
        if not defined:
            raise ValueError(
                f"loss.{name} has a weight, but the charges of model.head "
                f"{potential.config.head.name!r} with model.feedback "
                f"{potential.config.feedback.name!r} have none: choose the head 'acks2' or 'qeq' "
                "without feedback"
            )
        periodic = [
            bool(sample.graph.pbc.any()) and bool(getattr(sample.labels, name).isfinite().any())
            for sample in samples
        ]
        if any(periodic) and not head.polarizes_cells:
            heads = "'acks2'" + " or one with '+links'" * (name == "born_charges")
            raise ValueError(
                f"loss.{name} has a weight, and {sum(periodic)} periodic frames have this label, "
                f"but model.head {potential.config.head.name!r} has no dipole moment there: choose "
                f"{heads} and formal_charges: element, or remove these labels"
            )


def _counts(frame: LabelledAtoms, loss: LossConfig, name: str) -> bool:
    """Whether a label of a frame counts in the loss (a required one that is missing does, too)."""
    term = getattr(loss, name)
    return term.used and (term.required or bool(getattr(frame.labels, name).isfinite().all()))


def check_elements(
    frames: Sequence[LabelledAtoms], elements: Sequence[str], *, all_present: bool = True
) -> None:
    """Refuse frames whose elements are not those of the model.

    Frames for validation and test, and those for a trained model, may lack some of its elements
    (not `all_present`).

    Raises
    ------
    ValueError
        For elements that the model or the frames lack.
    """
    found: dict[str, str] = {}
    for frame in frames:
        for symbol in set(frame.atoms.symbols):
            found.setdefault(symbol, frame.origin)
    extra = [f"{s} ({found[s]})" for s in sorted(set(found) - set(elements))]
    absent = sorted(set(elements) - set(found)) if all_present else []
    if not extra and not absent:
        return
    problems = [f"the data also hold {', '.join(extra)}"] if extra else []
    problems += [f"no training frame holds {', '.join(absent)}"] if absent else []
    raise ValueError(
        f"model.elements is {list(elements)}, but {' and '.join(problems)}; set model.elements to "
        f"{sorted(found if all_present else {*found, *elements})}"
    )


def make_samples(frames: Sequence[LabelledAtoms], cutoff: float) -> list[Sample]:
    """Make the graph of every frame (without the plan of the electrostatic sums); `cutoff` in Å.

    Raises
    ------
    ValueError
        If two atoms of a frame coincide.
    """
    samples = []
    for frame in frames:
        graph = from_ase(frame.atoms, cutoff, total_charge=frame.total_charge)
        lengths = torch.linalg.vector_norm(edge_vectors(graph), dim=1)
        if (lengths < COINCIDENCE_DISTANCE).any():
            centre, neighbor = graph.edge_index[:, lengths.argmin()].tolist()
            raise ValueError(
                f"{frame.origin}: atoms {centre} and {neighbor} are {lengths.min():.3g} Å apart; "
                "remove or repair this frame"
            )
        samples.append(Sample(graph, frame.labels))
    return samples


def prepare_samples(samples: Sequence[Sample], potential: Potential) -> list[Sample]:
    """Add the plans of the electrostatic sums.

    Samples stay on the CPU, where lists of pairs are made and batches put together; a batch goes to
    the potential's device as a whole (hundreds of small copies would take longer than a step).
    """
    at_home = on_cpu(potential)
    return [Sample(at_home.prepare(graph), labels) for graph, labels in samples]


def join(samples: Sequence[Sample]) -> Sample:
    """Join samples into one batch."""
    labels = zip(*(sample.labels for sample in samples), strict=True)
    return Sample(
        collate([sample.graph for sample in samples]), Labels(*(torch.cat(t) for t in labels))
    )


def batches(
    samples: Sequence[Sample], plan: Sequence[Sequence[int]], device: torch.device
) -> Iterator[Sample]:
    """Yield the batches of a plan (see `batch_plan`), on a device."""
    for indices in plan:
        yield join([samples[i] for i in indices]).to(device)


def batch_plan(
    n_samples: int, batch_size: int, shuffle_seed: tuple[int, int] | None = None
) -> list[list[int]]:
    """Divide sample numbers into batches, in an order drawn from (seed, epoch) if given.

    A remainder of one structure joins the batch before it: a batch of one would make compiled
    code be compiled again.
    """
    order = np.arange(n_samples)
    if shuffle_seed is not None:
        order = np.random.default_rng(shuffle_seed).permutation(n_samples)
    starts = list(range(0, n_samples, batch_size))
    if batch_size > 1 and len(starts) > 1 and n_samples - starts[-1] == 1:
        starts.pop()
    ends = [*starts, n_samples]
    return [order[i:j].tolist() for i, j in itertools.pairwise(ends)]


def charge_range(frames: Sequence[LabelledAtoms]) -> tuple[float, float]:
    """Smallest and largest total charge in e."""
    charges = [frame.total_charge for frame in frames]
    return min(charges), max(charges)


def atoms_per_structure(graph: AtomicGraph) -> Float64[Tensor, " n_structures"]:
    """Count the atoms of each structure, as float64."""
    return graph.cell.new_zeros(graph.n_structures).index_add(
        0, graph.batch, graph.positions.new_ones(graph.n_atoms)
    )
