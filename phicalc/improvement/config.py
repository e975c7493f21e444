"""Settings of active learning: frozen dataclasses, read strictly from YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from phicalc.labelling import CalculatorSpec
from phicalc.labelling.samplers import SAMPLERS, Sampler
from phicalc.schema import (
    AtLeast,
    Between,
    Distinct,
    NotEmpty,
    Positive,
    apply_override,
    build,
    check_keys,
    checked,
    read_yaml,
    settings,
    to_plain,
)
from phicalc.validation import ValidationConfig, all_checks

#: What explores unless the settings name samplers: those of labelling, with these settings.
EXPLORERS: dict[str, dict[str, Any]] = {
    "md": {"temperatures": [300.0, 600.0], "frames": 20, "interval": 25},
    "relax": {"copies": 4, "displacement": 0.1},
    "rattle": {"copies": 40, "displacement": 0.08},
    "torsions": {"points": 12, "displacement": 0.03},
    "pairs": {"smallest": 0.7, "largest": 1.5},
    "dissociation": {"largest": 5.0},
    "compressed": {"smallest": 0.85, "largest": 1.1},
}
#: Settings of training that improvement decides itself.
_DECIDED = ("data", "output", "init", "threads")
#: The network of new models, unless the settings say otherwise: small and without holes.
NETWORK: dict[str, Any] = {
    "cutoff": 5.0,
    "repulsion": "zbl",
    "head": "none",
    "backbone": {"name": "nequip", "channels": 32, "edge_channels": 16, "inner_envelope": True},
}


@settings
@dataclass(frozen=True)
class BudgetConfig:
    """What may be spent; a run that has ended goes on with more.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    max_labels: Annotated[int, AtLeast(1)] = 200
    """Calls of the reference calculator; those that fail count, too."""
    max_minutes: Annotated[float, Positive] | None = None
    """Start no round after so many minutes of all rounds together."""
    max_rounds: Annotated[int, AtLeast(1)] = 10

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)


@settings
@dataclass(frozen=True)
class ImprovementConfig:
    """A whole run of active learning.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range, and for settings that contradict
        each other.
    """

    structures: Annotated[tuple[str, ...], NotEmpty]
    """Files with the structures to explore from."""
    output: Annotated[str, NotEmpty] = "improvement"
    """Folder for the rounds, the history and the model."""
    model: str | None = None
    """Name or folder of the model to improve; by default a new one is trained."""
    calculator: CalculatorSpec = CalculatorSpec()
    """The reference calculator, which labels."""
    data: tuple[str, ...] = ()
    """Files with frames that are labelled already, to train on from the start: those that `model`
    was trained on, else it forgets them."""
    test: tuple[str, ...] = ()
    """Files with labelled frames to measure errors on, and for nothing else."""
    train: dict[str, Any] = field(default_factory=dict)
    """Settings of the trainings, as in a file for ``phicalc train``."""
    steps: Annotated[int, AtLeast(1)] = 1500
    """Steps of the training of each round, unless `train` gives ``max_epochs``."""
    finetune: bool = True
    """Start each training from the model of the round before; false trains anew."""
    explore: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(EXPLORERS))
    """Samplers by their names in ``phicalc label --sample``, each with its settings."""
    densities: Annotated[tuple[Annotated[float, Positive], ...], NotEmpty, Distinct] = (1.0,)
    """Factors on the density of periodic structures: dynamics and relaxations start from each."""
    select: Literal["uncertainty", "random"] = "uncertainty"
    """``uncertainty``: frames that the model knows least, each counted as known for the next, more
    of them where the certificate failed; ``random``: any, as the baseline."""
    first_labels: Annotated[int, AtLeast(2)] = 30
    """Frames of the first round of a new model."""
    round_labels: Annotated[int, AtLeast(1)] = 30
    """Frames of each other round."""
    valid_fraction: Annotated[float, Between(0, 1, "()")] = 0.15
    """Part of the labelled frames that is kept for validation."""
    max_force: Annotated[float, Positive] = 50.0
    """eV/Å: labelled frames with a larger force are dropped."""
    timeout: Annotated[float, Positive] | None = 600.0
    """Seconds that the reference calculator may take for one frame, in a process of its own. None
    sets no limit; a crash of the calculator then ends the run."""
    check_reference: bool = True
    """Whether to compare forces with differences of energies before anything else is labelled."""
    workers: Annotated[int, AtLeast(1)] = 1
    """Processes that explore and label."""
    validate: ValidationConfig = ValidationConfig(quick=True)
    """Settings of the certificate that ends the run once it is passed."""
    budget: BudgetConfig = BudgetConfig()
    seed: Annotated[int, AtLeast(0)] = 0

    def __post_init__(self) -> None:
        """Check every field, then the settings of the parts that come as mappings."""
        checked(self)
        check_keys(self.explore, SAMPLERS, "explore")
        if not self.explore:
            raise ValueError("'explore' must name at least one sampler")
        for name in self.explore:
            self.sampler(name, 0)
        for name in _DECIDED:
            if name in self.train:
                raise ValueError(f"'train.{name}' is decided by each round; leave it out")
        if self.train.get("uncertainty") is False:
            raise ValueError("'train.uncertainty' must not be false: frames are chosen by it")
        checks = all_checks()
        check_keys({name: None for name in self.validate.only + self.validate.skip}, checks,
                   "validate.only or validate.skip")  # fmt: skip

    def sampler(self, name: str, round_number: int) -> Sampler:
        """Return a sampler with random numbers of its own for a round."""
        values = dict(self.explore[name])
        kind = SAMPLERS[name]
        if "seed" in kind.__dataclass_fields__:
            values.setdefault("seed", 1000 * self.seed + round_number)
        sampler: Sampler = build(kind, values, f"explore.{name}")
        return sampler

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        values: dict[str, Any] = to_plain(self)
        return values


def config_of(
    sources: Sequence[str | Path] | Mapping[str, Any], overrides: Sequence[str] = ()
) -> ImprovementConfig:
    """Return the settings in a YAML file, or the usual ones for files of structures.

    Parameters
    ----------
    sources
        One YAML file, or files of structures, or settings as a mapping.
    overrides
        Such as ``budget.max_labels=100``.

    Raises
    ------
    FileNotFoundError
        If there is no such YAML file.
    ValueError
        For settings that are not understood.
    """
    if isinstance(sources, Mapping):
        values, where = dict(sources), ""
    elif len(sources) == 1 and Path(sources[0]).suffix in (".yaml", ".yml"):
        values, where = read_yaml(sources[0]), f"{sources[0]}: "
    else:
        values, where = {"structures": [str(source) for source in sources]}, ""
    try:
        for override in overrides:
            apply_override(values, override)
        validate = values.get("validate")
        if isinstance(validate, dict):
            values["validate"] = {"quick": True, **validate}
        found: ImprovementConfig = build(ImprovementConfig, values)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error
    return found
