"""Add an uncertainty to a model that was trained before models had one."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from phicalc.card import ModelCard
from phicalc.checkpoint import find_model, load_model, save_model
from phicalc.data.config import KeysConfig
from phicalc.data.files import find_data_file, read_frames
from phicalc.data.frames import LabelledAtoms
from phicalc.data.isolated import without_isolated_atoms
from phicalc.training.config import config_from_dict
from phicalc.training.dataset import check_elements, load_splits, make_samples, prepare_samples
from phicalc.training.plots import plot_deviations
from phicalc.training.uncertainty import Calibration, calibration, fit_uncertainty

#: Errors against standard deviations, beside the model.
PICTURE = "uncertainty.png"


def add_uncertainty(
    model: str | os.PathLike[str],
    train: Sequence[str | Path] = (),
    valid: Sequence[str | Path] = (),
    output: str | os.PathLike[str] | None = None,
    *,
    keys: KeysConfig = KeysConfig(),  # noqa: B008 - frozen
    batch_size: int = 4,
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> Calibration:
    """Fit the last-layer uncertainty of a model, and save the model with it.

    Energies and forces stay the same, bit for bit.

    Parameters
    ----------
    model
        Name or folder of a model.
    train
        Files with the structures it was trained on; by default the files and the division that its
        card records, looked for as in training (`phicalc.data.files.find_data_file`).
    valid
        With `train`: files with labelled structures that it was not trained on.
    output
        Folder for the model with its uncertainty; by default its own.
    keys
        With `train`: names of the labels in the files.
    batch_size
        Structures evaluated at a time.
    device
        Where to evaluate: "auto", "cpu", "cuda", …
    report
        Receives one line for each set of structures.

    Returns
    -------
    calibration
        Of the validation structures; without any, of the training structures.

    Raises
    ------
    FileNotFoundError
        If the model, or a file, is nowhere to be found.
    ValueError
        If the structures do not fit the model, or are not those it was trained on.
    """
    folder = find_model(model)
    potential, card = load_model(folder, device=device)
    if train:
        frames = {"train": _frames(train, keys), "valid": _frames(valid, keys)}
    else:
        frames = _recorded_frames(card, folder)
    for found in frames.values():
        check_elements(found, potential.config.elements, all_present=False)
    samples = {
        role: prepare_samples(make_samples(found, potential.cutoff), potential)
        for role, found in frames.items()
        if found
    }
    judge, valid_samples = ("valid" if "valid" in samples else "train"), samples.get("valid", [])
    fitted = fit_uncertainty(potential, samples.get("train", []), valid_samples, batch_size)
    results = {judge: fitted}
    if "test" in samples:
        results["test"] = calibration(potential, samples["test"], batch_size)
    for role, result in results.items():
        report(f"{role} set: {result.line()}")
    metrics: dict[str, Any] = {role: result.metrics() for role, result in results.items()}
    card = replace(card, metrics={**card.metrics, "uncertainty": metrics})
    target = folder if output is None else Path(output).expanduser()
    save_model(target, potential, card)
    plot_deviations(fitted.by_title(), target / PICTURE)
    report(f"the model with its uncertainty, and a picture of it ({PICTURE}), is in {target}")
    return fitted


def _frames(files: Sequence[str | Path], keys: KeysConfig) -> list[LabelledAtoms]:
    """Read labelled structures."""
    found = [frame for name in files for frame in read_frames(find_data_file(name), keys)]
    return without_isolated_atoms(found)[0]


def _recorded_frames(card: ModelCard, folder: Path) -> dict[str, list[LabelledAtoms]]:
    """Read the structures of a model's training as its card records them."""
    if not card.training.get("config"):
        raise ValueError(
            f"the card of model {card.name!r} does not record its training: name the files that it "
            "was trained on (train), and some that it was not (valid)"
        )
    config = config_from_dict(card.training["config"])
    splits = load_splits(config.data, config.loss, folder)
    for role, entries in splits.record["files"].items():
        recorded = card.data.get("files", {}).get(role, [])
        if [entry["sha256"] for entry in entries] != [entry.get("sha256") for entry in recorded]:
            names = ", ".join(entry["name"] for entry in entries)
            raise ValueError(
                f"{names}: not the files that model {card.name!r} was trained on (their digests "
                "differ from those in its card); find these, or name the files yourself (train)"
            )
    return {role: getattr(splits, role) for role in ("train", "valid", "test")}
