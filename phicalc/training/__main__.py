"""``python -m phicalc.training config.yaml [section.key=value …]``: the trainer without a CLI."""

import argparse

from phicalc.training.run import train_from_yaml


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m phicalc.training", description=main.__doc__)
    parser.add_argument("config", help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    train_from_yaml(arguments.config, arguments.overrides)


if __name__ == "__main__":
    main()
