"""The one door for settings: YAML, Python and model cards are read by the same strict rules.

A settings class is a frozen dataclass whose annotations say everything about a field by itself::

    @settings
    @dataclass(frozen=True)
    class OptimizerConfig:
        name: Literal["soap", "adam"] = "soap"
        lr: Annotated[float, Positive] = 0.03
        betas: Annotated[float, Between(0, 1, "[)")] | None = None

        def __post_init__(self) -> None:
            checked(self)  # then whatever concerns two fields or more

`build` makes it from a mapping and names a wrong key by its full path, ``optimizer.lr``.
"""

from phicalc.schema.overrides import apply_override as apply_override
from phicalc.schema.plain import differences as differences
from phicalc.schema.plain import flatten as flatten
from phicalc.schema.plain import to_plain as to_plain
from phicalc.schema.reading import build as build
from phicalc.schema.reading import checked as checked
from phicalc.schema.reading import convert as convert
from phicalc.schema.reading import settings as settings
from phicalc.schema.rules import Ascending as Ascending
from phicalc.schema.rules import AtLeast as AtLeast
from phicalc.schema.rules import Between as Between
from phicalc.schema.rules import Distinct as Distinct
from phicalc.schema.rules import Even as Even
from phicalc.schema.rules import NonFinite as NonFinite
from phicalc.schema.rules import NotEmpty as NotEmpty
from phicalc.schema.rules import Positive as Positive
from phicalc.schema.rules import Rule as Rule
from phicalc.schema.text import dump_yaml as dump_yaml
from phicalc.schema.text import parse_yaml as parse_yaml
from phicalc.schema.text import read_yaml as read_yaml
from phicalc.schema.words import check_keys as check_keys

__all__ = [
    "Ascending",
    "AtLeast",
    "Between",
    "Distinct",
    "Even",
    "NonFinite",
    "NotEmpty",
    "Positive",
    "Rule",
    "apply_override",
    "build",
    "check_keys",
    "checked",
    "convert",
    "differences",
    "dump_yaml",
    "flatten",
    "parse_yaml",
    "read_yaml",
    "settings",
    "to_plain",
]
