"""The card of a trained model: what a run knows about it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phicalc.checkpoint import ModelCard
from phicalc.domain import Domain
from phicalc.domain.record import ENTRY
from phicalc.potential import PotentialConfig
from phicalc.training.config import TrainingConfig
from phicalc.training.dataset import Splits, charge_range
from phicalc.training.loss import UNITS


def card_of_run(
    config: TrainingConfig,
    splits: Splits,
    domain: Domain,
    parent: Mapping[str, str] | None,
    metrics: Mapping[str, Any],
    epoch: int,
) -> ModelCard:
    """Return the card of a run's model.

    Parameters
    ----------
    config
        Settings of the run.
    splits
        The data.
    domain
        What the training frames cover.
    parent
        Name and digest of the model that the run started from.
    metrics
        Errors by role (train, valid, test), in the units of `phicalc.training.loss.UNITS`.
    epoch
        Epoch whose weights the model has.
    """
    settings = config.to_dict()
    # names only: paths say something about a machine, not about the model
    for role in ("train", "valid", "test"):
        settings["data"][role] = [Path(name).name for name in settings["data"][role]]
    del settings["output"], settings["card"], settings["init"]
    training = {"epoch": epoch, "config": settings}
    card = config.card
    return ModelCard(
        name=card.name or Path(config.output).resolve().name,
        description=card.description,
        level_of_theory=card.level_of_theory,
        license=card.license,
        charge_range=charge_range(splits.train),
        limits=(*card.limits, *_limits_of(config.model)),
        data={"source": card.data_source, **splits.record, ENTRY: domain.to_dict()},
        metrics={**metrics, "units": {name: unit for name, (_, unit) in UNITS.items()}},
        training=training if parent is None else {**training, "parent": dict(parent)},
    )


def _limits_of(model: PotentialConfig) -> list[str]:
    """Sentences about what this kind of potential leaves out."""
    if not model.atomic_dipoles:
        return []
    return [
        "Dipoles of the atoms add to the dipole moment and to Born charges; the energy contains "
        "them in an external field only."
    ]
