"""The card of a model: what it is, where it comes from, how good it is, and its limits."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from phicalc._version import __version__
from phicalc.domain import Domain
from phicalc.schema import Ascending, AtLeast, NotEmpty, build, checked, settings

#: Version of the files of a model, see `phicalc.upgrades.UPGRADES`.
FORMAT_VERSION = 3


@settings
@dataclass(frozen=True)
class ModelCard:
    """What a model is, where it comes from, how good it is, and where it must not be used.

    `phicalc.checkpoint.save_model` fills in the last five fields itself.
    """

    name: Annotated[str, NotEmpty]
    description: str = ""
    level_of_theory: str = ""
    license: str = ""
    charge_range: Annotated[tuple[float, float], Ascending] | None = None
    """Smallest and largest total charge (e) of the training structures; None where unknown."""
    limits: tuple[str, ...] = ()
    """Known limits, one sentence each."""
    data: dict[str, Any] = field(default_factory=dict)
    """Training data: files, their digests, sizes, split, and what they cover (`domain`)."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Errors on data kept out of training, units in the keys."""
    training: dict[str, Any] = field(default_factory=dict)
    """Resolved configuration of the training run."""
    potential: dict[str, Any] = field(default_factory=dict)
    """`phicalc.potential.PotentialConfig` as a dictionary."""
    dtype: Literal["", "float32", "float64"] = ""
    """Precision of the network's parameters, "float32" or "float64"."""
    sha256: str = ""
    """Digest over the weights and the entries `potential` and `dtype`, which enter every number."""
    phicalc_version: str = __version__
    format_version: Annotated[int, AtLeast(1)] = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Check every field, and the record of the domain in `data`."""
        checked(self)
        Domain.from_data(self.data)

    @property
    def domain(self) -> Domain:
        """What the training data covered, as far as the card says."""
        domain = Domain.from_data(self.data)
        return domain if domain.charges else replace(domain, charges=self.charge_range)

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
        try:
            card = build(cls, values)
        except ValueError as error:
            raise ValueError(f"model card: {error}") from error
        missing = [f.name for f in fields(cls) if f.name not in values]
        if missing:
            raise ValueError(f"model card: missing key {', '.join(map(repr, missing))}")
        return card
