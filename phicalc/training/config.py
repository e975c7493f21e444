"""Settings of a training run: frozen dataclasses, read strictly from YAML.

Every default lives here and nowhere else; the resolved copy that a run writes into its output
folder holds all of them.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from phicalc.data.config import DataConfig
from phicalc.potential import PotentialConfig
from phicalc.schema import (
    apply_override,
    build,
    check_at_least,
    check_keys,
    check_positive,
    parse_yaml,
    to_plain,
)
from phicalc.training.objective import LossConfig, PenaltyConfig

#: Fields of `PotentialConfig` that training fits to the data and that YAML may not set.
FITTED = ("average_neighbors", "energy_scale", "reference_energies")


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer, gradient clipping and averaged weights."""

    name: Literal["soap", "adam", "adamw"] = "soap"
    """``soap`` fits forces in a fraction of the steps of ``adam``, at the same time for a step."""
    lr: float = 0.03
    """Full rate; 0.03 suits ``soap``, 0.01 ``adam`` and ``adamw``."""
    weight_decay: float = 0.0
    """Applied to weights of two or more dimensions only (not to biases and scales)."""
    clip: float | None = 10.0
    """Largest norm of the gradient; None switches clipping off."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights; 0 evaluates the raw weights."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        check_positive(lr=self.lr, clip=self.clip)
        if self.weight_decay < 0:
            raise ValueError(f"'weight_decay' must be ≥ 0, got {self.weight_decay}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"'ema_decay' must be in [0, 1), got {self.ema_decay}")


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over the run; every schedule counts steps, so runs repeat exactly."""

    name: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_epochs: float = 1.0
    """Linear rise from 0, in epochs (may be a fraction)."""
    hold: float = 0.0
    """``cosine``: fraction of the run at full rate before the decay starts."""
    final: float = 0.003
    """``cosine``: last rate; ``plateau``: smallest rate; both as a fraction of ``lr``."""
    factor: float = 0.5
    """``plateau``: factor after `patience` epochs without improvement."""
    patience: int = 20

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.warmup_epochs < 0:
            raise ValueError(f"'warmup_epochs' must be ≥ 0, got {self.warmup_epochs}")
        for name in ("hold", "final"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name!r} must be in [0, 1], got {getattr(self, name)}")
        if not 0 < self.factor < 1:
            raise ValueError(f"'factor' must be in (0, 1), got {self.factor}")
        check_at_least(1, patience=self.patience)


@dataclass(frozen=True)
class CheckpointConfig:
    """How often the whole state of the run is written (0: not by that count)."""

    every_epochs: int = 1
    every_steps: int = 0

    def __post_init__(self) -> None:
        """Refuse negative intervals."""
        check_at_least(0, every_epochs=self.every_epochs, every_steps=self.every_steps)


@dataclass(frozen=True)
class CardConfig:
    """What the model's card says about itself beyond what training knows."""

    name: str = "model"
    description: str = ""
    level_of_theory: str = "not stated"
    license: str = "not stated"
    data_source: str = ""
    """Origin and licence of the training data."""
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingConfig:
    """A whole training run."""

    data: DataConfig
    model: PotentialConfig
    output: str = "training_output"
    init: str | None = None
    """Name or folder of a model to start from; `model` must describe the same network."""
    loss: LossConfig = LossConfig()
    penalties: PenaltyConfig = PenaltyConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    card: CardConfig = CardConfig()
    batch_size: int = 4
    valid_batch_size: int | None = None
    """Structures per batch in validation; by default `batch_size`."""
    max_epochs: int = 200
    validate_every: int = 1
    """Epochs between validations (the last epoch is always validated)."""
    patience: int | None = None
    """Stop after so many validations without improvement; None never stops early."""
    seed: int = 0
    device: str = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    compile: Literal["auto", True, False] = "auto"
    """``auto`` compiles runs of more than 2000 steps and goes on uncompiled if that fails."""
    threads: int | None = None
    """CPU threads of the run; None leaves the process' setting alone."""

    def __post_init__(self) -> None:
        """Refuse counts that are not positive."""
        check_at_least(
            1,
            batch_size=self.batch_size,
            valid_batch_size=self.valid_batch_size,
            max_epochs=self.max_epochs,
            validate_every=self.validate_every,
            patience=self.patience,
            threads=self.threads,
        )
        self.penalties.check_head(self.model.head)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain dicts and lists; `config_from_dict` reads them back."""
        settings = to_plain(self)
        for name in FITTED:
            settings["model"].pop(name, None)
        return settings


def config_from_dict(settings: dict[str, Any]) -> TrainingConfig:
    """Make the configuration from plain settings, checking every key and type.

    Raises
    ------
    ValueError
        For unknown, missing or contradicting settings.
    """
    known = [f.name for f in dataclasses.fields(TrainingConfig)]
    check_keys(settings, known, "")
    model = dict(settings.get("model") or {})
    fitted = [name for name in FITTED if name in model]
    if fitted:
        raise ValueError(
            f"'model.{fitted[0]}' is fitted to the training data; remove it from the settings"
        )
    return build(TrainingConfig, {**settings, "model": model})


def load_config(path: str | Path, overrides: list[str] | None = None) -> TrainingConfig:
    """Read a YAML file and apply overrides such as ``optimizer.lr=0.005``.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        For settings that are not understood; the message names the file and the key.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration file {str(path)!r}")
    try:
        settings = parse_yaml(path.read_text(encoding="utf-8")) or {}
        if not isinstance(settings, dict):
            raise ValueError(f"expected sections of keys, got {type(settings).__name__}")
        for override in overrides or []:
            apply_override(settings, override)
        return config_from_dict(settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
