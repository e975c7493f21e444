"""Models on disk: weights in safetensors, a JSON card beside them, and a registry of named models.

A model is a folder with ``weights.safetensors`` and ``card.json``. Nothing is ever unpickled. The
card holds the SHA-256 of the weights; a pair that does not belong together is never loaded.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor

from phicalc._version import __version__
from phicalc.card import DTYPES, FORMAT_VERSION
from phicalc.card import ModelCard as ModelCard
from phicalc.potential import Potential, PotentialConfig, build_potential
from phicalc.state import sync_folder, write_atomically

CARD_FILE = "card.json"
WEIGHTS_FILE = "weights.safetensors"
#: New weights wait here until the card that names them is in place (see `save_model`).
PENDING_WEIGHTS_FILE = "weights.new.safetensors"
#: Environment variable with further folders of models, separated as in PATH.
MODELS_VARIABLE = "PHICALC_MODELS"


class UpgradeStep(NamedTuple):
    """How to turn a model of one format version into one of the next."""

    card: Callable[[dict[str, Any]], dict[str, Any]]
    weights: Callable[[dict[str, Tensor]], dict[str, Tensor]]


def _with_force_accuracy(card: dict[str, Any]) -> dict[str, Any]:
    """1 → 2: sums of charges are judged by the error of forces, no longer by a relative one."""
    potential = {key: v for key, v in card["potential"].items() if key != "coulomb_tolerance"}
    accuracy = PotentialConfig(elements=("H",)).force_accuracy
    return {**card, "potential": {**potential, "force_accuracy": accuracy}}


def _with_heads(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """1 → 2: electrostatic heads of several kinds have one name."""
    return {
        name.replace("charge_equilibration.", "head.", 1): tensor
        for name, tensor in weights.items()
    }


#: Upgrade steps by the version they start from. ``format_version`` and ``sha256`` (of the file as
#: it is on disk) keep their places in every version.
UPGRADES: dict[int, UpgradeStep] = {
    1: UpgradeStep(card=_with_force_accuracy, weights=_with_heads),
}


def save_model(folder: str | os.PathLike[str], potential: Potential, card: ModelCard) -> ModelCard:
    """Write a model, replacing the one in `folder` at a single instant.

    A process killed at any moment leaves the old model or the new one, never a mixture: new weights
    are written under a provisional name, the card that carries their digest then replaces the old
    card, and only then do the weights take their final name. `load_model` understands the
    moment in between.

    Parameters
    ----------
    folder
        Created if it does not exist.
    potential
        Saved in the precision it has.
    card
        Description of the model; what can be known from `potential` is filled in here.

    Returns
    -------
    ModelCard
        The card as written.

    Raises
    ------
    ValueError
        If a weight is not finite, parameters mix precisions, or the card holds what JSON cannot.
    OSError
        If the folder cannot be written (a full disk, say); the old model is then untouched.
    """
    bad = [name for name, t in potential.state_dict().items() if not bool(t.isfinite().all())]
    if bad:
        raise ValueError(f"weights are not finite: {', '.join(bad)}. Such a model is not saved")
    weights = _serialize(potential)
    card = replace(
        card,
        potential=potential.config.to_dict(),
        dtype=_parameter_dtype(potential),
        sha256=hashlib.sha256(weights).hexdigest(),
        phicalc_version=__version__,
        format_version=FORMAT_VERSION,
    )
    try:
        text = json.dumps(card.to_dict(), indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the card of model {card.name!r} does not fit into JSON: {error}. Use plain finite "
            "numbers, strings, lists and dictionaries in data, metrics and training"
        ) from error
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    _finish_interrupted_save(folder)
    write_atomically(folder / PENDING_WEIGHTS_FILE, weights)
    write_atomically(folder / CARD_FILE, f"{text}\n".encode())
    (folder / PENDING_WEIGHTS_FILE).replace(folder / WEIGHTS_FILE)
    sync_folder(folder)
    return card


def load_model(
    model: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
) -> tuple[Potential, ModelCard]:
    """Read a model.

    Parameters
    ----------
    model
        Name of a registered model (see `available_models`), a model folder, or a file in one.
        A plain word is looked up in the registry first; write ``./word`` for a folder.
    device
        Where the potential shall live: "cpu", "cuda", ..., or "auto" (CUDA where available).
    dtype
        Precision of the network, "float32" or "float64"; by default as it was saved.

    Returns
    -------
    Potential
        In evaluation mode.
    ModelCard

    Raises
    ------
    FileNotFoundError
        If there is no such model, or its folder lacks a file.
    ValueError
        If the files are incomplete, changed, contradict each other, or come from a newer phicalc;
        or for an unknown `dtype` or `device`.
    """
    target = resolve_device(device)
    precision = None if dtype is None else resolve_dtype(dtype)
    folder = find_model(model)
    values = _read_json(folder / CARD_FILE)
    steps = _upgrade_steps(values, folder)
    tensors = _read_weights(folder, values["sha256"])
    for step in steps:
        tensors = step.weights(tensors)
    card = _make_card(values, steps, folder)
    potential = _rebuild(card, tensors, folder)
    return potential.to(device=target, dtype=precision).eval(), card


def read_card(model: str | os.PathLike[str]) -> ModelCard:
    """Read only the card of a model; arguments and errors as for `load_model`."""
    folder = find_model(model)
    values = _read_json(folder / CARD_FILE)
    return _make_card(values, _upgrade_steps(values, folder), folder)


def available_models() -> dict[str, Path]:
    """Return the folders of all registered models by name.

    These are the models shipped with phicalc and those in the folders named by the environment
    variable PHICALC_MODELS (each a folder *of* model folders). Shipped names come first and
    cannot be replaced.
    """
    shipped = find_spec("phicalc.models")
    roots = list(shipped.submodule_search_locations or ()) if shipped else []
    roots += filter(None, os.environ.get(MODELS_VARIABLE, "").split(os.pathsep))
    found: dict[str, Path] = {}
    for root in roots:
        for card in sorted(Path(root).expanduser().glob(f"*/{CARD_FILE}")):
            found.setdefault(card.parent.name, card.parent)
    return found


def find_model(model: str | os.PathLike[str]) -> Path:
    """Return the folder of a model given by name, folder or file; errors as for `load_model`."""
    registered = available_models()
    if isinstance(model, str) and model in registered:
        return registered[model]
    path = Path(model).expanduser()
    folder = path.parent if path.is_file() else path
    if (folder / CARD_FILE).is_file():
        return folder
    if folder.is_dir():
        raise FileNotFoundError(
            f"{os.fspath(model)!r} is no phicalc model: {folder} has no {CARD_FILE}. A model is a "
            f"folder with {CARD_FILE} and {WEIGHTS_FILE}"
        )
    names = ", ".join(registered) or "none"
    raise FileNotFoundError(
        f"no model {os.fspath(model)!r}: neither a registered name nor an existing path. Registered"
        f" models: {names}. Give one of these or a model folder, or add the folder that holds your"
        f" models to {MODELS_VARIABLE}"
    )


def weights_digest(potential: Potential) -> str:
    """SHA-256 of the weights file that `save_model` would write for `potential`."""
    return hashlib.sha256(_serialize(potential)).hexdigest()


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Turn "float32" or "float64" into torch's dtype; ValueError for anything else."""
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    resolved: torch.dtype = getattr(torch, name)
    return resolved


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn "auto", "cpu", "cuda", ... into a device that exists here; ValueError otherwise."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda', ..., got {device!r}") from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {str(device)!r} is not there: torch sees {torch.cuda.device_count()} CUDA "
            "devices. Use device='auto' or 'cpu', or a torch with CUDA support"
        )
    return resolved


def _serialize(potential: Potential) -> bytes:
    """Weights as the bytes of a safetensors file."""
    state = potential.state_dict().items()
    return serialize({name: t.detach().to("cpu", copy=True).contiguous() for name, t in state})


def _parameter_dtype(potential: Potential) -> Literal["float32", "float64"]:
    """Name of the one precision of all parameters."""
    names = {str(p.dtype).removeprefix("torch.") for p in potential.parameters()}
    if len(names) != 1 or not names <= set(DTYPES):
        raise ValueError(
            f"parameters must all be float32 or all float64, got {sorted(names)}: call "
            "potential.to(torch.float32) or potential.to(torch.float64) first"
        )
    return "float32" if "float32" in names else "float64"


def _finish_interrupted_save(folder: Path) -> None:
    """Give weights that an interrupted save left under their provisional name their place."""
    pending, card = folder / PENDING_WEIGHTS_FILE, folder / CARD_FILE
    if pending.is_file() and card.is_file():
        wanted = _read_json(card).get("sha256")
        if hashlib.sha256(pending.read_bytes()).hexdigest() == wanted:
            pending.replace(folder / WEIGHTS_FILE)


def _read_json(path: Path) -> dict[str, Any]:
    """Read a card's raw entries."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): the file is incomplete or was edited; copy the "
            "model again"
        ) from error
    if not isinstance(values, dict) or not isinstance(values.get("sha256"), str):
        raise ValueError(f"{path} is not the card of a phicalc model: it has no 'sha256' entry")
    return values


def _upgrade_steps(values: dict[str, Any], folder: Path) -> list[UpgradeStep]:
    """Look up what leads from a card's format version to the present one."""
    version = values.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise ValueError(
            f"{folder / CARD_FILE}: format_version must be a whole number from 1, got {version!r}"
        )
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{folder} has model format {version}, written by phicalc "
            f"{values.get('phicalc_version', '?')}; this phicalc {__version__} reads formats up to "
            f"{FORMAT_VERSION}. Install a newer phicalc"
        )
    return [UPGRADES[older] for older in range(version, FORMAT_VERSION)]


def _make_card(values: dict[str, Any], steps: list[UpgradeStep], folder: Path) -> ModelCard:
    """Card of the present format from a card's raw entries."""
    for step in steps:
        values = step.card(values)
    try:
        return ModelCard.from_dict({**values, "format_version": FORMAT_VERSION})
    except ValueError as error:
        raise ValueError(f"{folder / CARD_FILE}: {error}") from error


def _read_weights(folder: Path, digest: str) -> dict[str, Tensor]:
    """Tensors of the weights file that has this digest."""
    found = []
    for name in (WEIGHTS_FILE, PENDING_WEIGHTS_FILE):
        path = folder / name
        if not path.is_file():
            continue
        content = path.read_bytes()
        actual = hashlib.sha256(content).hexdigest()
        if actual == digest:
            try:
                return deserialize(content)
            except SafetensorError as error:
                raise ValueError(f"{path} is no valid safetensors file: {error}") from error
        found.append(f"{path} ({len(content)} bytes, SHA-256 {actual[:12]}…)")
    if not found:
        raise FileNotFoundError(f"{folder} has a {CARD_FILE} but no {WEIGHTS_FILE}: copy both")
    raise ValueError(
        f"{' and '.join(found)} does not match its card (SHA-256 {digest[:12]}…): the file is "
        "incomplete or was changed, or it belongs to another model; copy the model again"
    )


def _rebuild(card: ModelCard, tensors: dict[str, Tensor], folder: Path) -> Potential:
    """Potential with the weights read, in the precision they were saved in."""
    try:
        config = PotentialConfig.from_dict(card.potential)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CARD_FILE}: entry 'potential': {error}") from error
    potential = build_potential(config).to(resolve_dtype(card.dtype))
    expected = {name: tuple(tensor.shape) for name, tensor in potential.state_dict().items()}
    actual = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != actual:
        different = sorted(
            f"{name} (expected {expected.get(name)}, found {actual.get(name)})"
            for name in expected.keys() | actual.keys()
            if expected.get(name) != actual.get(name)
        )
        raise ValueError(
            f"the weights in {folder} do not fit the potential in its card: "
            f"{len(different)} tensors differ, first {'; '.join(different[:3])}"
        )
    potential.load_state_dict(tensors)
    return potential
