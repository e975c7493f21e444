"""Every settings class and every field: wrong words, types and ranges, misspelt names, NumPy."""

import ast
import dataclasses
import inspect
import json
import math
import types
from collections.abc import Iterator
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import phicalc
from phicalc.card import ModelCard
from phicalc.electrostatics.sums.settings import CoulombSettings
from phicalc.labelling import CalculatorSpec
from phicalc.md import MDConfig
from phicalc.potential import PotentialConfig
from phicalc.schema import (
    AtLeast,
    Between,
    Positive,
    Rule,
    build,
    convert,
    dump_yaml,
    parse_yaml,
    to_plain,
)
from phicalc.training.config import TrainingConfig
from phicalc.training.objective import TermConfig

#: Fields without defaults, by class.
NEEDED: dict[str, dict[str, Any]] = {
    "Certificate": {
        "subject": "model",
        "digest": "0",
        "model_sha256": "",
        "elements": [],
        "settings": {},
        "outcomes": [],
    },  # fmt: skip
    "Curve": {"label": "", "x": [0.0, 1.0], "y": [0.0, 1.0]},
    "Figure": {"name": "height", "value": 1.0},
    "Outcome": {"check": "walls", "title": "", "status": "failed", "reason": "a crash"},
    "ImprovementConfig": {"structures": ["a.xyz"]},
    "Plot": {"title": "", "x_label": "", "y_label": "", "curves": []},
    "DataConfig": {"train": ["a.xyz"]},
    "ModelCard": {"name": "model"},
    "PotentialConfig": {"elements": ["H", "O"]},
    "TrainingConfig": {"data": {"train": ["a.xyz"]}, "model": {"elements": ["H", "O"]}},
}


def decorated(path: Path) -> dict[str, set[str]]:
    """Classes of a file, nested ones too (``Outer.Inner``), and their decorators."""
    found: dict[str, set[str]] = {}

    def walk(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                name = f"{outer}{child.name}"
                found[name] = {ast.unparse(d).partition("(")[0] for d in child.decorator_list}
                walk(child, f"{name}.")

    walk(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def settings_classes() -> Iterator[type]:
    """Every class of the package that is decorated with `phicalc.schema.settings`."""
    for path in FILES:
        names = [name for name, decorators in decorated(path).items() if "settings" in decorators]
        if names:
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            module = import_module(".".join(parts))
            yield from (attrgetter(name)(module) for name in names)


PACKAGE = Path(phicalc.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
REQUIRED = {kind: NEEDED.get(kind.__name__, {}) for kind in settings_classes()}


class Field(NamedTuple):
    kind: type
    name: str
    annotation: Any


def members(annotation: Any) -> list[Any]:
    """Alternatives of an annotation."""
    union = get_origin(annotation) in (Union, types.UnionType)
    return list(get_args(annotation)) if union else [annotation]


def outside(rule: Rule, kind: type) -> list[Any]:
    """Numbers of the right type that a rule refuses."""
    if isinstance(rule, AtLeast):
        return [kind(rule.low - 1)]
    if isinstance(rule, Between):
        ends = [rule.low] * (rule.ends[0] == "(") + [rule.high] * (rule.ends[1] == ")")
        return [kind(value) for value in [rule.low - 1, rule.high + 1, *ends]]
    return [kind(0), kind(-1)] if rule is Positive else []


def wrong_values(annotation: Any) -> list[Any]:
    """Values that no alternative of an annotation admits."""
    if len(members(annotation)) > 1:
        options = [one for one in members(annotation) if one is not type(None)]
        return [value for value in wrong_values(options[0]) if value is not None]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        ranges = [v for rule in arguments[1:] for v in outside(rule, arguments[0])]
        return wrong_values(arguments[0]) + ranges
    if origin is Literal:
        words = [word for word in arguments if isinstance(word, str) and word]
        return [f"{words[0]}x", words[0].upper(), 17, None] if words else ["one", 17]
    if origin is tuple:
        return ["abc", 3, {"a": 1}, None, *([bad] for bad in wrong_values(arguments[0]))]
    if origin is dict:
        return [[1], 3, "abc"]
    scalars: dict[Any, list[Any]] = {
        int: [1.5, "8", True, math.nan, [1], None],
        float: ["0.1", "fast", True, math.nan, math.inf, -math.inf, [0.1], {"a": 1}, None],
        bool: [1, 0.0, "yes", None],
        str: [3, 1.5, True, ["a"], None],
    }
    return scalars.get(annotation, [3, "abc", [1], {"unheard_of": 1}])


def fields_of(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


FIELDS = [Field(kind, *row) for kind in REQUIRED for row in fields_of(kind).items()]
every_field = pytest.mark.parametrize(
    "field", FIELDS, ids=lambda f: f"{f.kind.__qualname__}.{f.name}"
)


def from_yaml(kind: type, settings: dict[str, Any]) -> Any:
    return build(kind, parse_yaml(dump_yaml(settings)))


def refusal(kind: type, settings: dict[str, Any]) -> str:
    """Message for settings that must be refused, the same in Python and in YAML."""
    with pytest.raises(ValueError, match=".") as in_python:
        kind(**settings)
    with pytest.raises(ValueError, match=".") as in_yaml:
        from_yaml(kind, settings)
    assert str(in_python.value) == str(in_yaml.value)
    return str(in_python.value)


def test_no_settings_have_another_door():
    ends = ("Config", "Settings", "Sampler", "Spec")
    strangers = {
        name
        for path in FILES
        for name, decorators in decorated(path).items()
        if "dataclass" in decorators and "settings" not in decorators and name.endswith(ends)
    }
    assert not strangers
    assert {MDConfig, ModelCard, TrainingConfig, CalculatorSpec, CoulombSettings} <= set(REQUIRED)
    for kind in REQUIRED:
        if fields_of(kind):
            assert "checked(self)" in inspect.getsource(kind.__post_init__)


@every_field
def test_wrong_values_get_one_clear_line(field):
    for value in wrong_values(field.annotation):
        message = refusal(field.kind, REQUIRED[field.kind] | {field.name: value})
        if hasattr(field.annotation, "from_settings"):  # a section that is read by its name
            assert field.name in message
        else:
            starts = (
                f"'{field.name}",
                f"unknown key '{field.name}.",
                f"unknown key '{field.name}[",
            )
            assert message.startswith(starts)
        assert " must " in message or "Known" in message
        assert "\n" not in message
        assert len(message) < 500


@every_field
def test_misspelt_names_get_a_hint(field):
    name = field.name
    for misspelt in (name + name[-1], name[1:] if len(name) > 4 else name + "s", name.upper()):
        if misspelt not in fields_of(field.kind):
            message = refusal(field.kind, REQUIRED[field.kind] | {misspelt: 1})
            assert message.startswith(f"unknown key {misspelt!r}. Did you mean ")
            assert repr(name) in message.partition("Known keys")[0]


def in_numpy(value: Any) -> list[Any]:
    """Show a value in the forms that NumPy has for it."""
    if isinstance(value, bool):
        return [np.bool_(value), np.array(value)]
    if isinstance(value, int):
        return [np.int64(value), np.int32(value), np.array(value)]
    if isinstance(value, float):
        return [np.float64(value), np.longdouble(value), np.array(value)]
    if isinstance(value, str):
        return [np.str_(value), np.array(value)]
    if isinstance(value, tuple):
        return [list(value), *([np.array(value)] if value else [])]
    return []


@every_field
def test_numbers_of_numpy_are_numbers(field):
    default = field.kind(**REQUIRED[field.kind])
    for value in in_numpy(getattr(default, field.name)):
        made = field.kind(**REQUIRED[field.kind] | {field.name: value})
        assert made == default
        assert type(getattr(made, field.name)) is type(getattr(default, field.name))
        assert json.loads(json.dumps(to_plain(made))) == to_plain(default)


@pytest.mark.parametrize("kind", REQUIRED)
def test_defaults_pass_their_own_checks(kind):
    default = kind(**REQUIRED[kind])
    for name, annotation in fields_of(kind).items():
        assert convert(annotation, getattr(default, name), name) == getattr(default, name)
    plain = parse_yaml(dump_yaml(to_plain(default)))
    again = build(kind, plain)
    assert again == default


def test_single_precision_and_integers_of_numpy_in_dynamics_go_into_json():
    config = MDConfig(timestep=np.float32(0.5), steps=np.int64(20), seed=np.uint8(3))
    assert json.loads(json.dumps(config.to_dict()))["steps"] == 20
    assert config == MDConfig(timestep=0.5, steps=20, seed=3)


def test_cards_and_python_get_the_same_sentence():
    plain = ModelCard("model").to_dict()
    for wrong in ({"dtype": "float46"}, {"licence": "MIT"}, {"limits": "none"}, {"metrics": 3}):
        with pytest.raises(ValueError, match="^model card: ") as in_card:
            ModelCard.from_dict({**plain, **wrong})
        in_python = refusal(ModelCard, {"name": "model", **wrong})
        assert str(in_card.value) == f"model card: {in_python}"


def test_sections_can_be_mappings_in_python():
    made = TrainingConfig(
        data={"train": ("a.xyz",)},
        model=PotentialConfig(("H",)),
        loss={"energy": {"weight": np.float64(2)}},
    )
    assert made.loss.energy == TermConfig(2.0)
    with pytest.raises(ValueError, match=r"'loss\.energy\.wieght'\. Did you mean 'weight'"):
        TrainingConfig(
            data={"train": ("a.xyz",)}, model=PotentialConfig(("H",)),
            loss={"energy": {"wieght": 1}},
        )  # fmt: skip
