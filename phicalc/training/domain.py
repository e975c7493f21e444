"""The domain of a trained model: what its training frames cover, and for models that lack it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from phicalc.card import ModelCard
from phicalc.checkpoint import find_model, load_model, save_model
from phicalc.data.config import DataConfig
from phicalc.data.frames import LabelledAtoms
from phicalc.domain import Domain
from phicalc.domain.frames import domain_of_frames
from phicalc.domain.record import ENTRY
from phicalc.schema import build
from phicalc.training.dataset import Sample, load_splits, make_samples
from phicalc.training.objective import LossConfig


def domain_of_samples(
    frames: Sequence[LabelledAtoms], samples: Sequence[Sample], loss: LossConfig
) -> Domain:
    """Return what the training frames of a run cover.

    Parameters
    ----------
    frames, samples
        The training frames, and their graphs.
    loss
        Says whether stress is trained.
    """
    graphs = [sample.graph for sample in samples]
    return domain_of_frames(frames, graphs, stress=loss.stress.used)


def renew_domain(model: str | os.PathLike[str], base: Path | None = None) -> ModelCard:
    """Make the domain of a model from its training data again, and return the card written.

    Nothing else of the model changes, but its digest, which covers the domain.

    Parameters
    ----------
    model
        Name or folder of a model that phicalc trained. Its card names the files.
    base
        Folder where files are looked for first, see `phicalc.data.files.find_data_file`.

    Raises
    ------
    FileNotFoundError
        If there is no such model, or a file of its data is missing.
    ValueError
        If the card does not describe the data, or a file is not the one that it describes.
    """
    potential, card = load_model(model)
    folder = find_model(model)
    config = card.training.get("config", {})
    if "data" not in config:
        raise ValueError(f"the card of {card.name!r} does not say which data it was trained on")
    loss = build(LossConfig, config.get("loss"), "training.config.loss")
    data = build(DataConfig, config["data"], "training.config.data")
    splits = load_splits(data, loss, base or folder)
    recorded = {name: card.data[name] for name in splits.record if name in card.data}
    if recorded != splits.record:
        raise ValueError(
            f"the files found are not those that {card.name!r} was trained on: digests or numbers "
            "of frames differ from its card"
        )
    samples = make_samples(splits.train, potential.cutoff)
    domain = domain_of_samples(splits.train, samples, loss)
    return save_model(folder, potential, replace(card, data={**card.data, ENTRY: domain.to_dict()}))
