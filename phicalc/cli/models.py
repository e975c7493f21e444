"""Verbs about models and the installation, from ``train`` to ``doctor``."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phicalc.calculators.committee import is_committee, members_of
from phicalc.checkpoint import read_card
from phicalc.cli.arguments import print_columns, print_table
from phicalc.cli.keys import add_keys, keys_of
from phicalc.doctor import examine
from phicalc.info import describe_installation, describe_model, list_models, model_page
from phicalc.registry import available_models, models_for_work
from phicalc.structures import write_text
from phicalc.training import (
    attach,
    evaluate_model,
    train_committee_from_yaml,
    train_from_yaml,
)


def add_train(verb: argparse.ArgumentParser) -> None:
    """Training from a YAML file."""
    verb.set_defaults(run=_train)
    verb.add_argument("config", help="read the settings from this YAML file")
    verb.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="override settings of the file"
    )
    verb.add_argument(
        "--finetune", metavar="MODEL", help="start from the weights of this model (same network)"
    )
    verb.add_argument(
        "--members", type=int, metavar="N", help="train a committee: N seeds, one after another"
    )


def _train(options: argparse.Namespace) -> None:
    overrides = list(options.overrides)
    if options.finetune is not None:
        overrides.append(f"init={json.dumps(options.finetune)}")
    if options.members is None:
        train_from_yaml(options.config, overrides)
    else:
        train_committee_from_yaml(options.config, overrides, options.members)


def add_evaluate(verb: argparse.ArgumentParser) -> None:
    """Errors on labelled structures."""
    verb.set_defaults(run=_evaluate)
    verb.add_argument("model", help="name or folder of a model, or folder of a committee")
    verb.add_argument("data", help="extended XYZ file with labels")
    verb.add_argument("--output", help="write errors and pictures into this folder")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    add_keys(verb, "those of the training data")


def _evaluate(options: argparse.Namespace) -> None:
    members = members_of(options.model) if is_committee(options.model) else None
    known = _training_keys(members[0] if members else options.model)
    keys = keys_of(options, known)
    evaluate_model(
        members or options.model, options.data, options.output, keys=keys, device=options.device
    )


def _training_keys(model: str | Path) -> Mapping[str, Any]:
    """Names of the labels in the data that a model was trained on, as its card records them."""
    keys = read_card(model).training.get("config", {}).get("data", {}).get("keys", {})
    return keys if isinstance(keys, Mapping) else {}


def add_uncertainty(verb: argparse.ArgumentParser) -> None:
    """Error bars for a trained model."""
    verb.set_defaults(run=_uncertainty)
    verb.add_argument("model", help="name or folder of a model")
    verb.add_argument(
        "--train",
        nargs="+",
        default=[],
        metavar="FILE",
        help="take the structures that the model was trained on from these files (default: find "
        "the files that its card records)",
    )
    verb.add_argument(
        "--valid",
        nargs="+",
        default=[],
        metavar="FILE",
        help="with --train: scale the error bars to the errors on these labeled structures",
    )
    verb.add_argument("--output", help="write the model into this folder (default: its own)")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    add_keys(verb, "those of the training data")


def _uncertainty(options: argparse.Namespace) -> None:
    attach.add_uncertainty(
        options.model,
        options.train,
        options.valid,
        options.output,
        keys=keys_of(options, _training_keys(options.model)),
        device=options.device,
    )


def add_info(verb: argparse.ArgumentParser) -> None:
    """Versions, engines, devices and models."""
    verb.set_defaults(run=_info)
    verb.add_argument("model", nargs="?", help="show the card of this model")
    verb.add_argument("--page", help="write card and certificate as a page into this HTML file")


def _info(options: argparse.Namespace) -> None:
    if options.page is not None and options.model is None:
        raise ValueError("--page is that of a model: name one")
    print_table(describe_model(options.model) if options.model else describe_installation())
    if options.page is not None:
        print(f"written: {write_text(options.page, model_page(options.model))}")


def add_models(verb: argparse.ArgumentParser) -> None:
    """List the models."""
    verb.set_defaults(run=_models)


def _models(_: argparse.Namespace) -> None:
    rows = list_models()
    print_columns([row for row in rows if "error" not in row])
    for row in rows:
        if "error" in row:
            print(f"{row['name']} cannot be read: {row['error']}")
    others = sorted(available_models().keys() - models_for_work().keys())
    print(
        f"\nbenchmarks, not for work: {', '.join(others) or 'none'}\n"
        "certificate: checks of phicalc validate\n"
        "energy, forces: mean absolute errors on structures kept out of the training\n"
        "details, limits, license: phicalc info NAME"
    )


def add_doctor(verb: argparse.ArgumentParser) -> None:
    """Examine the installation."""
    verb.set_defaults(run=_doctor)
    verb.add_argument("--no-compile", action="store_true", help="skip the compiler (seconds)")
    verb.add_argument("--device", default="auto", help="try the models on auto, cpu, cuda, …")


def _doctor(options: argparse.Namespace) -> None:
    failed = []
    for check in examine(compiling=not options.no_compile, device=options.device):
        print(f"{'OK' if check.ok else 'FAILED':<7} {check.name:<26} {check.detail}", flush=True)
        if not check.ok:
            print(f"{'':<7} → {check.advice}")
            failed.append(check.name)
    if failed:
        raise RuntimeError(f"FAILED: {', '.join(failed)}; each says above what to do")
    print("everything is as it should be")
