"""Settings with wrong words, types, ranges and keys: from Python, YAML and cards."""

import dataclasses
import json
import shutil
import types
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
import yaml

from phicalc import PhiCalculator, load_model
from phicalc.backbone import NequIPSettings
from phicalc.checkpoint import ModelCard
from phicalc.electrostatics import ChargeEquilibration, CoulombSettings
from phicalc.feedback import ChargeNetwork
from phicalc.md import MDConfig
from phicalc.potential import PotentialConfig, build_potential
from phicalc.training import TrainingConfig, config_from_dict, load_config
from tools.fuzz.models import TINY_BACKBONE, check_results, scratch, tiny_model, water
from tools.fuzz.verdicts import Case, Unsound

COUNT = 1500

#: Fields that mean nothing unless they are positive, wherever they occur.
_POSITIVE = {
    "cutoff", "layers", "channels", "radial_basis", "energy_scale", "average_neighbors",
    "hardness_floor", "timestep", "log_interval", "trajectory_interval", "checkpoint_interval",
    "max_force", "max_temperature", "thermostat_time", "barostat_time", "batch_size", "lr",
    "max_epochs", "force_accuracy", "charge_scale", "splitting", "real_cutoff", "delta",
}  # fmt: skip


#: Options of the sections that name a class, for the classes that `_NETWORK` names.
_TAGGED = {
    "backbone": NequIPSettings,
    "head": ChargeEquilibration.Settings,
    "feedback": ChargeNetwork.Settings,
}


class Change(NamedTuple):
    """One wrong (or odd) value of one field."""

    value: Any
    wrong: bool
    """Whether it has to be refused."""


class Target(NamedTuple):
    """Something that takes settings."""

    cls: type
    base: dict[str, Any]
    """Settings that it accepts."""
    give: Callable[[dict[str, Any]], Any]
    text: bool = False
    """Whether settings pass through JSON or YAML, which hold plain types only."""


def make_case(seed: int) -> Case:
    """Make the case of a seed."""
    rng = np.random.default_rng([2, seed])
    name = tuple(TARGETS)[seed % len(TARGETS)]
    target = TARGETS[name]
    cls, path = _section(target, rng)
    fields = [f.name for f in dataclasses.fields(cls)]
    hints = get_type_hints(cls)
    key = fields[rng.integers(len(fields))]
    if rng.random() < 0.15:
        return _misspelt(name, target, path, key, rng)
    if name == "potential" and rng.random() < 0.3:
        return _valid_network(rng)
    changes = _changes(hints[key], key)
    if target.text:
        changes = [change for change in changes if _is_plain(change.value)]
    change = changes[rng.integers(len(changes))]
    settings = _with(target.base, [*path, key], change.value)
    where = ".".join([*path, key])
    # A card with another digest is refused whatever is wrong with it.
    named = change.wrong and not name.startswith("card.json")
    inside = tuple(change.value) if isinstance(change.value, dict) else ()
    return Case(
        f"{name}: {_type_name(hints[key])}",
        f"{name}: {where}={change.value!r:.100}",
        lambda: target.give(settings),
        must_refuse=change.wrong,
        names=(key, *map(str, inside), *_EQUIVALENT.get(key, ())) if named else (),
    )


#: What else an error may call a field.
_EQUIVALENT = {"elements": ("chemical symbols",), "name": ("name",)}


def _misspelt(
    name: str, target: Target, path: list[str], key: str, rng: np.random.Generator
) -> Case:
    """Make a case of an unknown key."""
    place = int(rng.integers(len(key)))
    wrong: Any = key[:place] + key[place + 1 :] + ("" if len(key) > 1 else "x")
    settings = _with(target.base, [*path, wrong], 1)
    if name.endswith("yaml") and rng.random() < 0.3:
        settings[3 if rng.random() < 0.5 else (1, 2)] = 1
    run = lambda: target.give(settings)  # noqa: E731
    # A card with another digest is refused whatever is wrong with it.
    names = () if name.startswith("card.json") else (wrong, "key", "overrid")
    return Case(f"{name}: unknown key", f"{name}: {wrong!r}", run, True, names)


def _valid_network(rng: np.random.Generator) -> Case:
    """Make a case of settings that are in range: a network must come out, or an error."""
    hints = get_type_hints(PotentialConfig)
    settings: dict[str, Any] = dict(_NETWORK)
    skip = {"elements", "reference_energies", "cutoff", *_TAGGED}
    for name in rng.choice([n for n in hints if n not in skip], size=2, replace=False):
        settings[str(name)] = _valid(hints[name], rng)
    hints = get_type_hints(NequIPSettings)
    for name in rng.choice([n for n in hints if n != "channels"], size=2, replace=False):
        settings["backbone"] = {**settings["backbone"], str(name): _valid(hints[name], rng)}
    text = ", ".join(f"{k}={v!r}" for k, v in settings.items() if _NETWORK.get(k) != v)
    return Case("potential: valid", f"potential: {text}", lambda: _use_network(settings))


def _use_network(settings: dict[str, Any]) -> None:
    config = PotentialConfig(**settings)
    calculator = PhiCalculator(build_potential(config, seed=3), compile=False)
    atoms = water(2)
    calculator.calculate(atoms, ["energy", "forces"])
    check_results(calculator.results, atoms.numbers, config)


def _section(target: Target, rng: np.random.Generator) -> tuple[type, list[str]]:
    """Walk down into nested sections at random."""
    cls, path = target.cls, []
    while True:
        hints = get_type_hints(cls)
        hints |= {name: _TAGGED[name] for name in hints if name in _TAGGED}
        nested = [n for n, hint in hints.items() if dataclasses.is_dataclass(hint)]
        if not nested or (rng.random() < 0.35 and path):
            return cls, path
        if not path and rng.random() < 0.3:
            return cls, path
        path.append(nested[rng.integers(len(nested))])
        cls = hints[path[-1]]  # type: ignore[assignment]


def _with(base: dict[str, Any], path: list[Any], value: Any) -> dict[str, Any]:
    """Copy nested settings with one value changed."""
    changed = dict(base)
    if len(path) == 1:
        return {**base, path[0]: value}
    changed[path[0]] = _with(dict(base.get(path[0]) or {}), path[1:], value)
    return changed


def _changes(hint: Any, name: str) -> list[Change]:
    """Values for a field of this type, most of them wrong."""
    main = _main_type(hint)
    # An empty section stands for its defaults.
    nullable = type(None) in get_args(hint) or dataclasses.is_dataclass(main)
    origin = get_origin(main)
    if origin is Literal:
        found = _literal_changes(get_args(main))
    elif origin is tuple:
        found = _wrong(5, 1.5, {"a": 1}, True, [object()], "HO", [[1], [2]], float("nan"))
    elif origin is dict:
        found = _wrong(5, "x", [1, 2], True) + [Change({1: 2}, False), Change({"": None}, False)]
    elif dataclasses.is_dataclass(main):
        found = _wrong(5, "x", [1], True, {"unknown_key": 1})
    else:
        found = list(_SCALARS.get(main, _wrong(object())))
        if name in _POSITIVE:
            found += _wrong(0, -1) if main is int else _wrong(0.0, -0.5, -1)
    return found + [Change(None, not nullable)]


def _literal_changes(choices: tuple[Any, ...]) -> list[Change]:
    words = [str(choice) for choice in choices]
    word = words[-1]
    swapped = word[:-2] + word[-1] + word[-2:-1]
    wrong = [word + "s", word.upper(), word[:-1], f" {word}", swapped, 5, 1.5, [word], "", b"x"]
    return _wrong(*(w for w in wrong if w not in choices)) + [Change(choices[0], False)]


def _wrong(*values: Any) -> list[Change]:
    return [Change(value, True) for value in values]


_SCALARS: dict[Any, list[Change]] = {
    float: [
        *_wrong("1.0", "", float("nan"), np.float64("nan"), [1.0], {}, 1j, b"1", (1, 2)),
        *(Change(v, False) for v in (float("inf"), 1e300, -1e300, 1, np.float64(0.5),
                                     np.float32(0.5), np.int64(1), np.array(0.5), 10**400)),
    ],
    int: [
        *_wrong("2", 1.5, float("nan"), [2], {}, 1j, b"2", np.float64(1.5)),
        *(Change(v, False) for v in (2.0, np.int64(2), np.int32(1), 10**30, -(10**30), 0, -1)),
    ],
    bool: [*_wrong("yes", "true", 0.5, [], {}, 2), Change(1, False), Change(np.True_, False)],
    str: [*_wrong(5, 1.5, [], {}, b"x", True), Change("ä\n\0", False), Change("", False)],
}  # fmt: skip


def _valid(hint: Any, rng: np.random.Generator) -> Any:
    """Return a value that the type and common sense allow."""
    main = _main_type(hint)
    if get_origin(main) is Literal:
        choices = get_args(main)
        return choices[rng.integers(len(choices))]
    plain = {int: int(rng.integers(0, 5)), bool: bool(rng.integers(2)), str: "text"}
    return plain.get(main, float(np.exp(rng.normal(scale=1.5))))


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, np.generic | tuple)


def _type_name(hint: Any) -> str:
    """Return a type in one word."""
    main = _main_type(hint)
    if dataclasses.is_dataclass(main):
        return "section"
    return "word" if get_origin(main) is Literal else (get_origin(main) or main).__name__


def _main_type(hint: Any) -> Any:
    """Return a type without ``None``."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next(member for member in members if member is not type(None))


_NETWORK: dict[str, Any] = {
    "elements": ("H", "O"), "cutoff": 3.0, "backbone": TINY_BACKBONE, "head": {"name": "qeq"},
    "feedback": {"name": "network"},
}  # fmt: skip
_TRAINING: dict[str, Any] = {
    "data": {"train": ["none.xyz"]},
    "model": {**_NETWORK, "elements": ["H", "O"]},
}


def _from_yaml(settings: dict[str, Any]) -> Any:
    """Read settings from a file; a tuple among the keys stands for a list."""
    text = yaml.safe_dump({key: v for key, v in settings.items() if not isinstance(key, tuple)})
    text += "".join(f"? {list(key)}\n: 1\n" for key in settings if isinstance(key, tuple))
    path = scratch() / "training.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def _from_python(settings: dict[str, Any], cls: type = TrainingConfig) -> Any:
    """Make nested dataclasses as a script does."""
    hints = get_type_hints(cls)
    made = {
        key: _from_python(value, hints[key])
        if dataclasses.is_dataclass(hints.get(key))
        and key not in _TAGGED
        and isinstance(value, dict)
        else tuple(value) if isinstance(value, list) and key in ("train", "elements") else value
        for key, value in settings.items()
    }  # fmt: skip
    return cls(**made)


def _plain_card() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((tiny_model("qeq") / "card.json").read_text())
    return values


def _edited_card(changes: dict[str, Any]) -> None:
    """Load a model whose card was edited; what was changed must be refused or change nothing."""
    folder = scratch() / "edited"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny_model("qeq"), folder)
    card = _plain_card()
    (folder / "card.json").write_text(json.dumps({**card, **changes}))
    found, _ = load_model(folder)
    original, _ = load_model(tiny_model("qeq"))
    if found.config != original.config:
        raise Unsound("edited settings of the network are used")


def _to_json(made: Any) -> None:
    """Write settings as JSON where they offer it: NumPy numbers must not get in the way."""
    if hasattr(made, "to_dict"):
        json.dumps(made.to_dict())


def _edited_section(settings: dict[str, Any]) -> None:
    _edited_card({"potential": {**_plain_card()["potential"], **settings}})


TARGETS: dict[str, Target] = {
    "potential": Target(
        PotentialConfig, _NETWORK, lambda s: _to_json(PotentialConfig(**s))
    ),
    "potential dict": Target(
        PotentialConfig, _NETWORK, lambda s: PotentialConfig.from_dict(s)
    ),
    "training yaml": Target(TrainingConfig, _TRAINING, _from_yaml, text=True),
    "training dict": Target(TrainingConfig, _TRAINING, config_from_dict),
    "training python": Target(TrainingConfig, _TRAINING, _from_python),
    "md": Target(MDConfig, {}, lambda s: _to_json(MDConfig(**s))),
    "coulomb": Target(CoulombSettings, {}, lambda s: CoulombSettings(**s)),
    "card": Target(ModelCard, {"name": "x"}, lambda s: _to_json(ModelCard(**s))),
    "card.json": Target(ModelCard, {}, _edited_card, text=True),
    "card.json potential": Target(PotentialConfig, {}, _edited_section, text=True),
}  # fmt: skip
