"""The verb ``improve``."""

import argparse

from phicalc.improvement import config_of, improve


def add_improve(verb: argparse.ArgumentParser) -> None:
    """Active learning."""
    verb.set_defaults(run=_improve)
    verb.description = (
        "Improve a model by active learning, or make a new one: explore with the model, label what "
        "it knows least with a reference calculator, train, validate, until the certificate is "
        "passed or the budget is spent. Start it again to continue. The exit code is 0 if the "
        "certificate is passed, 1 if not. Settings are described in docs/improve.md."
    )
    verb.add_argument(
        "input",
        nargs="+",
        help="read all settings from this YAML file, or explore from these structure files; "
        "KEY=VALUE overrides settings: model=my_model calculator.name=gfn2-xtb "
        "budget.max_labels=100 output=FOLDER",
    )


def _improve(options: argparse.Namespace) -> int:
    sources = [text for text in options.input if "=" not in text]
    overrides = [text for text in options.input if "=" in text]
    if not sources:
        raise ValueError("name a YAML file with settings, or files with structures")
    return 0 if improve(config_of(sources, overrides)).passed else 1
