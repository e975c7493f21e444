"""Arguments that several verbs share, and what is made of them."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from phicalc.calculators.committee import CommitteeCalculator, is_committee
from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.compiled import Mode
from phicalc.schema import parse_yaml

COMPILE_MODES: dict[str, Mode] = {
    "auto": "auto", "background": "background", "yes": True, "no": False,
}  # fmt: skip


def as_setting(text: str) -> Any:
    """Return a word or a number as YAML reads it; settings judge it like values from a file.

    Raises
    ------
    ArgumentTypeError
        For text that is not YAML.
    """
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    return text if value is None else value


def add_structure(verb: argparse.ArgumentParser, index: str) -> None:
    """Arguments of the verbs that evaluate structures."""
    verb.add_argument("input", help="structure file: extxyz, CIF, POSCAR, …")
    verb.add_argument("--index", default=index, help="choose structures of the file, as in ASE")
    verb.add_argument(
        "--model", default="water", help="name of a model, or folder of a model or committee"
    )
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    verb.add_argument("--dtype", default="float32", help="precision: float32 or float64")
    verb.add_argument("--charge", type=float, help="total charge in e (default: of the file, or 0)")
    verb.add_argument(
        "--strict",
        action="store_true",
        help="refuse structures outside of what the model was trained on, instead of a warning",
    )
    verb.add_argument(
        "--compile",
        default="auto",
        choices=tuple(COMPILE_MODES),
        help="yes: compile the model (a minute or two, once); auto: use what there is; background: "
        "compile meanwhile, so that runs cannot be repeated bit for bit",
    )


def calculator_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Parameters of the calculator among the options of `add_structure`, as far as given."""
    settings = {
        "model": options.model,
        "device": options.device,
        "dtype": options.dtype,
        "total_charge": options.charge,
        "strict": options.strict or None,
        "compile": None if options.compile is None else COMPILE_MODES[options.compile],
    }
    return {name: value for name, value in settings.items() if value is not None}


def add_scheduler(verb: argparse.ArgumentParser) -> None:
    """Arguments of the verbs that can spread structures over processes and machines."""
    verb.add_argument(
        "--workers", type=int, default=1, help="spread structures over processes of one thread each"
    )
    verb.add_argument(
        "--scheduler", help="use the workers of a dask scheduler instead, e.g. tcp://host:8786"
    )


def make_calculator(settings: Mapping[str, Any]) -> PhiCalculator | CommitteeCalculator:
    """Make a calculator; a committee where the model is a folder of members, or several models."""
    others = dict(settings)
    model = others.pop("model", None)
    if model is not None and is_committee(model):
        return CommitteeCalculator(model, **others)
    return PhiCalculator(**settings)


def calculator_of(options: argparse.Namespace) -> PhiCalculator | CommitteeCalculator:
    """Make the calculator that the options of `add_structure` describe."""
    return make_calculator(calculator_settings(options))


def print_table(rows: Mapping[str, str]) -> None:
    """Print names and texts in two columns."""
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:<{width}}  {text}")


def print_columns(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows of the same entries as a table with a line of names."""
    if not rows:
        return
    lines = [{name: name for name in rows[0]}, *rows]
    widths = {name: max(len(line[name]) for line in lines) for name in rows[0]}
    for line in lines:
        print("  ".join(f"{line[name]:<{widths[name]}}" for name in widths).rstrip())
