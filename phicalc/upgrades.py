"""Upgrades of models of older formats: card entries and weights, one format version at a time."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Shaped
from torch import Tensor

#: Options of a potential's sections up to format 2, where they were flat: old name → new name.
BACKBONE_OPTIONS = {
    name: name
    for name in (
        "layers", "channels", "edge_channels", "l_max", "hidden_l_max", "correlation",
        "radial_basis", "gate",
    )
}  # fmt: skip
_COULOMB = {"force_accuracy": "force_accuracy", "smearing": "trained_smearing"}
_ONE_WIDTH = {**_COULOMB, "latent_smearing": "smearing"}
_SCREENED = {"phi_channels": "channels", "screening_floor": "screening_floor"}
HEAD_OPTIONS: dict[str, dict[str, str]] = {
    "none": {},
    "qeq": {
        **_COULOMB,
        "electrostatic_energy": "energy",
        "hardness": "hardness",
        "hardness_floor": "hardness_floor",
    },
    "latent": _ONE_WIDTH,
    "spectral": {"eigenpairs": "eigenpairs"},
    "dirichlet": {"phi_channels": "channels"},
    "solve": _SCREENED,
    "random": _SCREENED,
    "solve+coulomb": {**_SCREENED, **_ONE_WIDTH},
}
FEEDBACK_OPTIONS: dict[str, dict[str, str]] = {
    "none": {},
    "embedding": {},
    "network": {
        "feedback_layers": "layers",
        "charge_basis": "charge_basis",
        "charge_range": "charge_range",
    },
}
#: Names of all flat options. Those that the head and feedback in use lack had no meaning.
_FLAT = {
    *BACKBONE_OPTIONS,
    *(name for options in HEAD_OPTIONS.values() for name in options),
    *(name for options in FEEDBACK_OPTIONS.values() for name in options),
    "head", "charge_feedback",
}  # fmt: skip


#: Tensors of a model by name.
Weights = dict[str, Shaped[Tensor, "..."]]


class UpgradeStep(NamedTuple):
    """How to turn a model of one format version into one of the next."""

    card: Callable[[dict[str, Any]], dict[str, Any]]
    weights: Callable[[Weights], Weights]


def with_sections(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a potential with sections, from the flat ones of formats 1 and 2.

    Settings that have sections already stay as they are.
    """
    if not isinstance(flat.get("head", "qeq"), str) or "backbone" in flat:
        return dict(flat)
    head, feedback = flat.get("head", "qeq"), flat.get("charge_feedback", "none")
    sections = {
        "backbone": _section("nequip", BACKBONE_OPTIONS, flat),
        "head": _section(head, HEAD_OPTIONS.get(head, {}), flat),
        "feedback": _section(feedback, FEEDBACK_OPTIONS.get(feedback, {}), flat),
    }
    kept = {name: value for name, value in flat.items() if name not in _FLAT}
    return {**kept, **sections}


def _section(name: str, options: Mapping[str, str], flat: Mapping[str, Any]) -> dict[str, Any]:
    """One section: its name, and those of its options that the flat settings had."""
    found = {new: flat[old] for old, new in options.items() if old in flat}
    if "trained_smearing" in found:
        found["trained_smearing"] = found["trained_smearing"] == "trained"
    return {"name": name, **found}


def _with_force_accuracy(card: dict[str, Any]) -> dict[str, Any]:
    """1 → 2: Coulomb sums are set by the error of forces, no longer by a relative one."""
    potential = {key: v for key, v in card["potential"].items() if key != "coulomb_tolerance"}
    return {**card, "potential": {**potential, "force_accuracy": 1e-4}}


def _with_heads(weights: Weights) -> Weights:
    """1 → 2: electrostatic heads of several kinds have one name."""
    return {
        name.replace("charge_equilibration.", "head.", 1): tensor
        for name, tensor in weights.items()
    }


def _with_tagged_sections(card: dict[str, Any]) -> dict[str, Any]:
    """2 → 3: backbone, head and feedback are sections that name a class and its options."""
    training = card["training"]
    config = training.get("config")
    if isinstance(config, Mapping) and isinstance(config.get("model"), Mapping):
        model = {key: v for key, v in config["model"].items() if key != "coulomb_tolerance"}
        training = {**training, "config": {**config, "model": with_sections(model)}}
    return {**card, "potential": with_sections(card["potential"]), "training": training}


def _unchanged(weights: Weights) -> Weights:
    """2 → 3: weights keep their names."""
    return weights


#: Upgrade steps by the version they start from. ``format_version`` and ``sha256`` keep their
#: places in every version.
UPGRADES: dict[int, UpgradeStep] = {
    1: UpgradeStep(card=_with_force_accuracy, weights=_with_heads),
    2: UpgradeStep(card=_with_tagged_sections, weights=_unchanged),
}
