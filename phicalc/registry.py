"""Registered models: those shipped with phicalc, and folders that the user adds."""

import os
from importlib.util import find_spec
from pathlib import Path

CARD_FILE = "card.json"
WEIGHTS_FILE = "weights.safetensors"
#: Folder among the shipped ones with models that show what a method can do, on the sets of a paper.
BENCHMARKS = "benchmarks"
#: Environment variable with further folders of models, separated as in PATH.
MODELS_VARIABLE = "PHICALC_MODELS"


def available_models() -> dict[str, Path]:
    """Return the folders of all registered models by name.

    These are the models shipped with phicalc and those in the folders named by the environment
    variable PHICALC_MODELS (each a folder *of* model folders). Shipped names come first and
    cannot be replaced. Models in a folder ``benchmarks`` among them are found by their names, too;
    lists leave them out.
    """
    return _models("*", f"{BENCHMARKS}/*")


def models_for_work() -> dict[str, Path]:
    """Return the folders of the registered models but those made to compare methods, by name."""
    listed = _models("*")
    return {name: path for name, path in available_models().items() if listed.get(name) == path}


def _models(*patterns: str) -> dict[str, Path]:
    """Return the model folders that match patterns, by name; the first of a name counts."""
    roots = _shipped()
    roots += filter(None, os.environ.get(MODELS_VARIABLE, "").split(os.pathsep))
    found: dict[str, Path] = {}
    for root in roots:
        for pattern in patterns:
            for card in sorted(Path(root).expanduser().glob(f"{pattern}/{CARD_FILE}")):
                found.setdefault(card.parent.name, card.parent)
    return found


def _shipped() -> list[str]:
    """Return the folders of the shipped models.

    Who starts Python in a clone imports phicalc from there, whatever is installed: its models lie
    beside it, and not in it.
    """
    installed = find_spec("phicalc.models")
    if installed is not None:
        return list(installed.submodule_search_locations or ())
    beside = Path(__file__).parents[1] / "models"
    return [str(beside)] if (beside / "__init__.py").is_file() else []


def find_model(model: str | os.PathLike[str]) -> Path:
    """Return the folder of a model given by name, folder or file.

    The output folder of a training run stands for the model in it.

    Raises
    ------
    FileNotFoundError
        If there is neither a registered model nor a model folder of that name.
    """
    registered = available_models()
    if isinstance(model, str) and model in registered:
        return registered[model]
    path = Path(model).expanduser()
    folder = path.parent if path.is_file() else path
    for candidate in (folder, folder / "model"):
        if (candidate / CARD_FILE).is_file():
            return candidate
    if folder.is_dir():
        raise FileNotFoundError(
            f"{os.fspath(model)!r} is no phicalc model: {folder} has no {CARD_FILE}. A model is a "
            f"folder with {CARD_FILE} and {WEIGHTS_FILE}"
        )
    names = ", ".join(models_for_work()) or "none"
    raise FileNotFoundError(
        f"no model {os.fspath(model)!r}: neither a registered name nor an existing path. Registered"
        f" models: {names}. Give one of these or a model folder, or add the folder that holds your"
        f" models to {MODELS_VARIABLE}"
    )
