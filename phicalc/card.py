"""The card of a model: what it is, where it comes from, how good it is, and its limits."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from phicalc._version import __version__

#: Version of the files of a model, see `phicalc.checkpoint.UPGRADES`.
FORMAT_VERSION = 2

#: Precisions a network can have.
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class ModelCard:
    """What a model is, where it comes from, how good it is, and where it must not be used.

    `phicalc.checkpoint.save_model` fills in the last five fields itself.
    """

    name: str
    description: str = ""
    level_of_theory: str = ""
    license: str = ""
    charge_range: tuple[float, float] | None = None
    """Smallest and largest total charge (e) of the training structures; None where unknown."""
    limits: tuple[str, ...] = ()
    """Known limits, one sentence each."""
    data: dict[str, Any] = field(default_factory=dict)
    """Training data: files, their digests, sizes, split."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Errors on data kept out of training, units in the keys."""
    training: dict[str, Any] = field(default_factory=dict)
    """Resolved configuration of the training run."""
    potential: dict[str, Any] = field(default_factory=dict)
    """`phicalc.potential.PotentialConfig` as a dictionary."""
    dtype: str = ""
    """Precision of the network's parameters, "float32" or "float64"."""
    sha256: str = ""
    """Digest of the weights file."""
    phicalc_version: str = __version__
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Check the fields that code relies on."""
        if not self.name:
            raise ValueError("ModelCard: name must not be empty")
        if self.dtype not in ("", *DTYPES):
            raise ValueError(f"ModelCard: dtype must be 'float32' or 'float64', got {self.dtype!r}")
        if self.charge_range is not None:
            low, high = self.charge_range
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(
                    "ModelCard: charge_range must be (smallest, largest) total charge in e, "
                    f"got {self.charge_range}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the card as a dictionary that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelCard":
        """Make a card from a dictionary as `to_dict` writes it.

        Raises
        ------
        ValueError
            For unknown, missing or mistyped entries.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        missing = sorted(known - set(values))
        if unknown or missing:
            raise ValueError(f"model card: unknown entries {unknown}, missing entries {missing}")
        wrong = [key for key, types in _ENTRY_TYPES.items() if not isinstance(values[key], types)]
        if wrong:
            raise ValueError(
                "model card: wrong type of "
                + ", ".join(f"{key!r} ({type(values[key]).__name__})" for key in wrong)
            )
        charge_range = values["charge_range"]
        if charge_range is not None:
            if len(charge_range) != 2 or not all(isinstance(q, int | float) for q in charge_range):
                raise ValueError(
                    f"model card: charge_range must be two numbers or null, got {charge_range}"
                )
            charge_range = (float(charge_range[0]), float(charge_range[1]))
        limits = tuple(str(limit) for limit in values["limits"])
        return cls(**{**values, "charge_range": charge_range, "limits": limits})


_ENTRY_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "description", "level_of_theory", "license"), str),
    **dict.fromkeys(("dtype", "sha256", "phicalc_version"), str),
    **dict.fromkeys(("data", "metrics", "training", "potential"), dict),
    "charge_range": (list, tuple, type(None)),
    "limits": (list, tuple),
    "format_version": int,
}
