"""What is installed here and which models there are: for `phicalc info` and for bug reports."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

import phicalc.certificate as certificates
from phicalc._version import __version__
from phicalc.card import ModelCard
from phicalc.checkpoint import read_card
from phicalc.domain import describe_domain
from phicalc.domain.record import ENTRY
from phicalc.neighbors import ENGINES, available_engines
from phicalc.pages import page, table
from phicalc.registry import WEIGHTS_FILE, find_model, models_for_work

#: Distributions whose versions matter to results or speed.
DISTRIBUTIONS = ("torch", "numpy", "scipy", "ase", "vesin", "safetensors", "torch-cluster",
                 "matscipy", "pymatgen", "spglib", "phonopy")  # fmt: skip


def describe_installation() -> dict[str, str]:
    """Versions, neighbor engines, devices and models, each as a line of text by name."""
    engines = available_engines()
    rows = {"phicalc": __version__, "Python": platform.python_version()}
    rows |= {name: _version(name) for name in DISTRIBUTIONS}
    rows["neighbor engines"] = ", ".join(
        name if name in engines else f"{name} (not installed)" for name in ENGINES
    )
    rows["device"] = _device()
    rows["threads"] = str(torch.get_num_threads())
    rows["models"] = ", ".join(sorted(models_for_work())) or "none"
    return rows


def describe_model(model: str) -> dict[str, str]:
    """Card of a model, each entry as a line of text by name.

    Parameters
    ----------
    model
        Name or folder, as for `phicalc.checkpoint.load_model`; errors are those of that function.
    """
    card = read_card(model)
    config = card.potential
    rows = {
        "name": card.name,
        "folder": str(find_model(model)),
        "description": card.description,
        "level of theory": card.level_of_theory,
        "license": card.license,
        "elements": " ".join(config.get("elements", ())),
        "cutoff": f"{config.get('cutoff')} Å",
        "electrostatics": _head_of(config),
        "total charges": "unknown" if card.charge_range is None else _range(card.charge_range),
        "precision": card.dtype,
        "size": f"{(find_model(model) / WEIGHTS_FILE).stat().st_size / 1000:.0f} kB",
        "format": f"{card.format_version}, written by phicalc {card.phicalc_version}",
        "sha256": card.sha256,
    }
    rows |= describe_domain(card.domain)
    rows["certificate"] = certificates.find_certificate(find_model(model), card.sha256)
    rows |= {f"metric {name}": _short(value) for name, value in card.metrics.items()}
    rows |= {f"data {name}": _short(value) for name, value in card.data.items() if name != ENTRY}
    rows |= {f"limit {number}": text for number, text in enumerate(card.limits, start=1)}
    return {name: text for name, text in rows.items() if text}


def model_page(model: str) -> str:
    """Return an HTML page about a model: its card, and its certificate with pictures.

    Parameters
    ----------
    model
        Name or folder, as for `phicalc.checkpoint.load_model`; errors are those of that function.

    Raises
    ------
    ValueError
        If the certificate beside the model cannot be read.
    """
    rows, path = describe_model(model), find_model(model) / certificates.CERTIFICATE_FILE
    body = table(rows.items()) + "<h2>Certificate</h2>\n"
    if not path.is_file():
        return page(rows["name"], f"{body}<p>There is none: run phicalc validate.</p>\n")
    return page(
        rows["name"], body + certificates.certificate_body(certificates.read_certificate(path))
    )


def list_models() -> list[dict[str, str]]:
    """Return one row of text for each shipped or registered model for work.

    A row has ``name``, ``elements``, ``made for``, ``periodic`` (0D, 3D, both, or – if unknown),
    ``charges``, ``energy`` and ``forces`` (mean absolute errors with units), and ``certificate``
    (what `phicalc.validation` found). The row of a model that cannot be read has ``name`` and
    ``error`` instead.
    """
    return [_row(name, folder) for name, folder in sorted(models_for_work().items())]


def _row(name: str, folder: Path) -> dict[str, str]:
    """Row of the table of models."""
    try:
        card = read_card(folder)
    except (OSError, ValueError) as error:
        return {"name": name, "error": str(error)}
    errors = card.metrics.get("test") or card.metrics.get("valid") or {}
    units = card.metrics.get("units", {})

    def error_of(kind: str) -> str:
        value = errors.get(f"{kind}_mae")
        return "–" if value is None else f"{value:.3g} {units.get(kind, '')}".strip()

    return {
        "name": name,
        "elements": " ".join(card.potential.get("elements", ())),
        "made for": shorten(card.description, 44, placeholder=" …") or "–",
        "periodic": _periodicity(card),
        "charges": "–" if card.charge_range is None else _range(card.charge_range),
        "energy": error_of("energy"),
        "forces": error_of("forces"),
        "certificate": certificates.find_certificate(folder, card.sha256) or "–",
    }


def _periodicity(card: ModelCard) -> str:
    """Whether the training structures were molecules (0D) or crystals and liquids (3D)."""
    domain = card.domain
    isolated = domain.periodic is False if domain.isolated is None else domain.isolated
    kinds = ["0D"] * isolated + ["3D"] * bool(domain.periodic)
    return " ".join(kinds) or "–"


def _head_of(potential: Mapping[str, Any]) -> str:
    """Name of the electrostatic head in the settings of a potential."""
    return str(potential["head"]["name"])


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _device() -> str:
    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return "cpu"


def _range(limits: tuple[float, float]) -> str:
    low, high = limits
    return f"{low:g} e" if low == high else f"{low:g} to {high:g} e"


def _short(value: object) -> str:
    """Entry of a card in one line: rounded numbers, long lists by their length."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return "; ".join(map(_short, value)) if len(value) <= 4 else f"({len(value)} entries)"
    return str(value)
