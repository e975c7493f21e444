"""Models on disk: weights in safetensors and a JSON card beside them.

A model is a folder with ``weights.safetensors`` and ``card.json``. Nothing is ever unpickled. The
card holds a SHA-256 digest over the weights and those of its entries that enter a number
or a check (`DIGESTED`): a model that was changed, or whose files do not belong together, is
never loaded. A model whose settings name a class outside phicalc runs the code of that class; it is
loaded only where the caller allows that.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize

from phicalc._version import __version__
from phicalc.card import FORMAT_VERSION
from phicalc.card import ModelCard as ModelCard
from phicalc.kinds import imports
from phicalc.placement import DTYPES
from phicalc.placement import resolve_device as resolve_device
from phicalc.placement import resolve_dtype as resolve_dtype
from phicalc.potential import Potential, PotentialConfig, build_potential
from phicalc.registry import CARD_FILE, WEIGHTS_FILE
from phicalc.registry import available_models as available_models
from phicalc.registry import find_model as find_model
from phicalc.state import sync_folder, write_atomically
from phicalc.uncertainty import LastLayerUncertainty
from phicalc.upgrades import UPGRADES, UpgradeStep, Weights

#: New weights wait here until the card that names them is in place (see `save_model`).
PENDING_WEIGHTS_FILE = "weights.new.safetensors"
#: Entries of the card that enter a number, or a check of the structures that a model is for.
DIGESTED = ("potential", "dtype", "charge_range", "data")
#: Beginning of the names of what a potential may have or lack, whatever its settings say.
UNCERTAINTY = "uncertainty"
#: First format version whose digest covers the card's numbers as well as the weights.
WHOLE_DIGEST = 3


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
        If a weight is not finite, parameters mix precisions, the card holds what JSON cannot, or
        the settings of `potential` do not describe its modules (one was replaced by hand), so that
        it could not be loaded again.
    OSError
        If the folder cannot be written (a full disk, say); the old model is then untouched.
    """
    bad = [name for name, t in potential.state_dict().items() if not bool(t.isfinite().all())]
    if bad:
        raise ValueError(f"weights are not finite: {', '.join(bad)}. Such a model is not saved")
    _check_settings_describe(potential)
    weights, settings = _serialize(potential), potential.config.to_dict()
    dtype = _parameter_dtype(potential)
    card = replace(
        card,
        potential=settings,
        dtype=dtype,
        phicalc_version=__version__,
        format_version=FORMAT_VERSION,
    )
    try:
        card = replace(card, sha256=_digest(weights, card.to_dict()))
        text = json.dumps(card.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)
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
    allow_import: bool = False,
) -> tuple[Potential, ModelCard]:
    """Return a model read from disk.

    Parameters
    ----------
    model
        Name of a registered model (see `available_models`), a model folder, or a file in one.
        A plain word is looked up in the registry first; write ``./word`` for a folder.
    device
        Device of the potential: "cpu", "cuda", ..., or "auto" (CUDA where available).
    dtype
        Precision of the network, "float32" or "float64"; by default as it was saved.
    allow_import
        Import classes from outside phicalc that the card names, which runs their code. Allow it
        for models whose source you trust.

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
        if the card names a class outside phicalc and `allow_import` is false; or for an unknown
        `dtype` or `device`.
    """
    target = resolve_device(device)
    precision = None if dtype is None else resolve_dtype(dtype)
    folder = find_model(model)
    values = _read_json(folder / CARD_FILE)
    steps = _upgrade_steps(values, folder)
    tensors = _read_weights(folder, values)
    for step in steps:
        tensors = step.weights(tensors)
    card = _make_card(values, steps, folder)
    with imports(allowed=allow_import):
        potential = _rebuild(card, tensors, folder)
    return potential.to(device=target, dtype=precision).eval(), card


def read_card(model: str | os.PathLike[str]) -> ModelCard:
    """Read only the card of a model; arguments and errors as for `load_model`."""
    folder = find_model(model)
    values = _read_json(folder / CARD_FILE)
    return _make_card(values, _upgrade_steps(values, folder), folder)


def model_digest(potential: Potential, *, uncertainty: bool = True) -> str:
    """Return a SHA-256 digest over all that enters the numbers of `potential`.

    Without `uncertainty`, over what enters energies and forces.
    """
    entries = {"potential": potential.config.to_dict(), "dtype": _parameter_dtype(potential)}
    return _digest(_serialize(potential, uncertainty), entries)


def _digest(weights: bytes, card: Mapping[str, Any]) -> str:
    """SHA-256 over the weights and the card entries that enter a number or a check."""
    entries = {name: card[name] for name in DIGESTED if name in card}
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode() + b"\n" + weights).hexdigest()


def _check_settings_describe(potential: Potential) -> None:
    """Refuse a potential that could not be rebuilt from its settings."""
    different = sorted(_outline(potential) ^ _outline(build_potential(potential.config)))
    if different:
        raise ValueError(
            "the settings of this potential do not describe its modules, so it could not be loaded "
            f"again: {'; '.join(different[:3])} differ. Name the class of a module of your own in "
            "the settings, such as backbone={'name': 'package.module:Class'}"
        )


def _outline(potential: Potential) -> set[str]:
    """Classes of the modules and shapes of the tensors, by name."""
    modules = {f"{name}: {type(module).__qualname__}" for name, module in potential.named_modules()}
    tensors = {f"{name}: {tuple(t.shape)}" for name, t in potential.state_dict().items()}
    return {line for line in modules | tensors if not line.startswith(UNCERTAINTY)}


def _serialize(potential: Potential, uncertainty: bool = True) -> bytes:
    """Weights, and the uncertainty if wanted, as the bytes of a safetensors file."""
    state = {
        name: t.detach().to("cpu", copy=True).contiguous()
        for name, t in potential.state_dict().items()
        if uncertainty or not name.startswith(UNCERTAINTY)
    }
    return serialize(state)


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
        values = _read_json(card)
        if _digest_found(pending.read_bytes(), values) == values["sha256"]:
            pending.replace(folder / WEIGHTS_FILE)


def _read_json(path: Path) -> dict[str, Any]:
    """Read a card's raw entries."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): the file is incomplete or was edited; copy the "
            "model again"
        ) from error
    if not isinstance(values, dict) or not isinstance(values.get("sha256"), str):
        raise ValueError(f"{path} is not the card of a phicalc model: it has no 'sha256' entry")
    for name, kind in (("format_version", int), ("potential", dict), ("dtype", str)):
        if not isinstance(values.get(name), kind) or isinstance(values[name], bool):
            raise ValueError(
                f"{path}: entry {name!r} must be of type {kind.__name__}, got "
                f"{values.get(name)!r}; copy the model again"
            )
    return values


def _refuse_constant(name: str) -> None:
    """Refuse NaN and infinities, which Python would read though JSON has none."""
    raise ValueError(f"it holds {name}, which is no number of JSON")


def _upgrade_steps(values: dict[str, Any], folder: Path) -> list[UpgradeStep]:
    """Look up what leads from a card's format version to the present one."""
    version: int = values["format_version"]
    if version < 1:
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


def _digest_found(weights: bytes, values: Mapping[str, Any]) -> str:
    """Digest of weights and card entries as they are on disk, by the rule of their format."""
    if values["format_version"] < WHOLE_DIGEST:
        return hashlib.sha256(weights).hexdigest()
    return _digest(weights, values)


def _read_weights(folder: Path, values: Mapping[str, Any]) -> Weights:
    """Tensors of the weights file that belongs to a card's raw entries."""
    found, wanted = [], values["sha256"]
    for name in (WEIGHTS_FILE, PENDING_WEIGHTS_FILE):
        path = folder / name
        if not path.is_file():
            continue
        content = path.read_bytes()
        actual = _digest_found(content, values)
        if actual == wanted:
            try:
                return deserialize(content)
            except SafetensorError as error:
                raise ValueError(f"{path} is no valid safetensors file: {error}") from error
        found.append(f"{path} ({len(content)} bytes, digest {actual[:12]}…)")
    if not found:
        raise FileNotFoundError(f"{folder} has a {CARD_FILE} but no {WEIGHTS_FILE}: copy both")
    raise ValueError(
        f"{' and '.join(found)} does not match its card (SHA-256 {wanted[:12]}…): the weights, or "
        "entries of the card that enter numbers or checks, are incomplete or were changed, or the "
        "files belong to different models; copy the model again"
    )


def _rebuild(card: ModelCard, tensors: Weights, folder: Path) -> Potential:
    """Potential with the weights read, in the precision they were saved in."""
    try:
        config = PotentialConfig.from_dict(card.potential)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CARD_FILE}: entry 'potential': {error}") from error
    potential = build_potential(config)
    if any(name.startswith(UNCERTAINTY) for name in tensors):
        potential.uncertainty = LastLayerUncertainty(potential.n_last, len(potential.elements))
    potential = potential.to(resolve_dtype(card.dtype))
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
