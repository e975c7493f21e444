"""Verbs about models and the installation, from ``train`` to ``doctor``."""

import argparse
import json

from phicalc.cli.arguments import print_table
from phicalc.doctor import examine
from phicalc.info import describe_installation, describe_model, list_models
from phicalc.training import evaluate_model, train_committee_from_yaml, train_from_yaml


def add_train(verb: argparse.ArgumentParser) -> None:
    """Training from a YAML file."""
    verb.set_defaults(run=_train)
    verb.add_argument("config", help="YAML file")
    verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that go before")
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
    verb.add_argument("model", help="name or folder of a model")
    verb.add_argument("data", help="extended XYZ file with labels")
    verb.add_argument("--output", help="folder for the errors and pictures")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, …")


def _evaluate(options: argparse.Namespace) -> None:
    evaluate_model(options.model, options.data, options.output, device=options.device)


def add_info(verb: argparse.ArgumentParser) -> None:
    """Versions, engines, devices and models."""
    verb.set_defaults(run=_info)
    verb.add_argument("model", nargs="?", help="show the card of this model instead")


def _info(options: argparse.Namespace) -> None:
    print_table(describe_model(options.model) if options.model else describe_installation())


def add_models(verb: argparse.ArgumentParser) -> None:
    """List the models."""
    verb.set_defaults(run=_models)


def _models(_: argparse.Namespace) -> None:
    for model in list_models():
        print(model.pop("name"))
        for name, text in model.items():
            print(f"  {name:<20} {text}")


def add_doctor(verb: argparse.ArgumentParser) -> None:
    """Examine the installation."""
    verb.set_defaults(run=_doctor)
    verb.add_argument("--no-compile", action="store_true", help="leave out the compiler (seconds)")
    verb.add_argument("--device", default="auto", help="where to try models: auto, cpu, cuda, …")


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
