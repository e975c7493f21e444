"""Settings of a training run: frozen dataclasses, read strictly from YAML.

Every default lives here and nowhere else; the resolved copy that a run writes into its output
folder holds all of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from phicalc.backbone.sizes import with_size
from phicalc.checkpoint import read_card
from phicalc.data.config import DataConfig
from phicalc.potential import PotentialConfig
from phicalc.schema import (
    AtLeast,
    Between,
    NotEmpty,
    Positive,
    apply_override,
    build,
    checked,
    read_yaml,
    settings,
    to_plain,
)
from phicalc.training.flat import refuse_flat_settings
from phicalc.training.objective import LossConfig, PenaltyConfig
from phicalc.upgrades import with_sections

#: File in the output folder that holds the resolved settings.
RESOLVED = "config.yaml"
#: Fields of `PotentialConfig` that training fits to the data and that YAML may not set.
FITTED = ("average_neighbors", "energy_scale", "reference_energies")


@settings
@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer, gradient clipping and averaged weights.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    name: Literal["soap", "adam", "adamw"] = "soap"
    """``soap`` fits forces in a fraction of the steps of ``adam``, at the same time for a step."""
    lr: Annotated[float, Positive] = 0.03
    """Full rate; 0.03 suits ``soap``, 0.01 ``adam`` and ``adamw``."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    """Applied to weights of two or more dimensions only (not to biases and scales)."""
    clip: Annotated[float, Positive] | None = 10.0
    """Largest norm of the gradient; None switches clipping off."""
    ema_decay: Annotated[float, Between(0, 1, "[)")] = 0.999
    """Decay of the exponential moving average of the weights; 0 evaluates the raw weights."""

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)


@settings
@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over the run; every schedule counts steps, so runs repeat exactly.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    name: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup_epochs: Annotated[float, AtLeast(0)] = 1.0
    """Linear rise from 0, in epochs (may be a fraction)."""
    hold: Annotated[float, Between(0, 1)] = 0.0
    """``cosine``: fraction of the run at full rate before the decay starts."""
    final: Annotated[float, Between(0, 1)] = 0.003
    """``cosine``: last rate; ``plateau``: smallest rate; both as a fraction of ``lr``."""
    factor: Annotated[float, Between(0, 1, "()")] = 0.5
    """``plateau``: factor after `patience` epochs without improvement."""
    patience: Annotated[int, AtLeast(1)] = 20

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)


@settings
@dataclass(frozen=True)
class CheckpointConfig:
    """Intervals at which the whole state of the run is saved; 0 disables an interval.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    every_epochs: Annotated[int, AtLeast(0)] = 1
    every_steps: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)


@settings
@dataclass(frozen=True)
class CardConfig:
    """What the model's card says beyond what training knows itself.

    Raises
    ------
    ValueError
        For a setting of the wrong type.
    """

    name: Annotated[str, NotEmpty] | None = None
    """By default that of the folder that the run writes to."""
    description: str = ""
    level_of_theory: str = "not stated"
    license: str = "not stated"
    data_source: str = ""
    """Origin and licence of the training data."""
    limits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)


@settings
@dataclass(frozen=True)
class TrainingConfig:
    """A whole training run.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range, and for settings that contradict
        each other.
    """

    data: DataConfig
    model: PotentialConfig
    output: str = "training_output"
    init: str | None = None
    """Name or folder of a model to start from. Entries that `model` leaves out are the parent's;
    those it gives must be the same."""
    loss: LossConfig = LossConfig()
    penalties: PenaltyConfig = PenaltyConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    card: CardConfig = CardConfig()
    batch_size: Annotated[int, AtLeast(1)] = 4
    valid_batch_size: Annotated[int, AtLeast(1)] | None = None
    """Structures per batch in validation; by default `batch_size`."""
    max_epochs: Annotated[int, AtLeast(1)] = 200
    validate_every: Annotated[int, AtLeast(1)] = 1
    """Epochs between validations (the last epoch is always validated)."""
    patience: Annotated[int, AtLeast(1)] | None = None
    """Stop after so many validations without improvement; None never stops early."""
    uncertainty: bool = True
    """Fit the last-layer uncertainty of the best model at the end (`phicalc.uncertainty`)."""
    seed: int = 0
    device: str = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    compile: Literal["auto", True, False] = "auto"
    """``auto`` compiles runs of more than 2000 steps and goes on uncompiled if that fails."""
    threads: Annotated[int, AtLeast(1)] | None = None
    """CPU threads of the run; None leaves the process' setting alone."""

    def __post_init__(self) -> None:
        """Check every field, then what several say together."""
        checked(self)
        self.penalties.check_head(self.model.head)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain dicts and lists; `config_from_dict` reads them back."""
        settings = to_plain(self)
        for name in FITTED:
            settings["model"].pop(name, None)
        return settings


def config_from_dict(settings: dict[str, Any]) -> TrainingConfig:
    """Make the configuration from plain settings, checking every key and type.

    ``model.backbone`` may name a size (`phicalc.backbone.sizes`). A run that starts from a model
    (``init``) takes those settings of ``model`` that are not given from this parent.

    Raises
    ------
    FileNotFoundError
        If there is no model `init`.
    ValueError
        For unknown, missing or contradicting settings.
    """
    model = settings.get("model") or {}
    if not isinstance(model, dict):
        return build(TrainingConfig, settings)  # which refuses it
    refuse_flat_settings(model)
    if "backbone" in model:
        model = {**model, "backbone": with_size(model["backbone"])}
    fitted = [name for name in FITTED if name in model]
    if fitted:
        raise ValueError(
            f"'model.{fitted[0]}' is fitted to the training data; remove it from the settings"
        )
    init = settings.get("init")
    if isinstance(init, str):
        model = {**_model_of_parent(init, settings.get("output")), **model}
    return build(TrainingConfig, {**settings, "model": model})


def _model_of_parent(init: str, output: Any) -> dict[str, Any]:
    """Return the ``model`` block of a parent; a run that has begun keeps it in its own folder."""
    try:
        potential = read_card(init).potential
    except FileNotFoundError:
        begun = Path(str(output)) / RESOLVED
        if not begun.is_file():
            raise
        potential = with_sections(read_yaml(begun).get("model") or {})
    return {name: value for name, value in potential.items() if name not in FITTED}


def load_config(path: str | Path, overrides: list[str] | None = None) -> TrainingConfig:
    """Read a YAML file and apply overrides such as ``optimizer.lr=0.005``.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        For settings that are not understood; the message names the file and the key.
    """
    try:
        settings = read_yaml(path)
        for override in overrides or []:
            _open_section(settings, override)
            apply_override(settings, override)
        return config_from_dict(settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _open_section(settings: dict[str, Any], override: str) -> None:
    """Turn ``head: qeq``, or no ``head``, into a section whose options an override can reach."""
    top, _, path = override.partition("=")[0].strip().partition(".")
    name, dot, _ = path.partition(".")
    model = settings.get(top)
    if top != "model" or not dot or not isinstance(model, dict):
        return
    if name in _DEFAULT_NAMES and name not in model and not settings.get("init"):
        model[name] = _DEFAULT_NAMES[name]
    if name in _SECTIONS and isinstance(model.get(name), str):
        model[name] = {"name": model[name]}


_SECTIONS = ("backbone", "head", "feedback")
_DEFAULT_NAMES = {"backbone": "nequip", "head": "qeq"}
