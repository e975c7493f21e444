"""Which models suit some elements: for messages to those who chose another one."""

from collections.abc import Iterable

from phicalc.checkpoint import read_card
from phicalc.registry import models_for_work


def models_with(elements: Iterable[str]) -> list[str]:
    """Return the names of the shipped and registered models that know all of some elements."""
    return [name for name, missing in _missing_elements(elements).items() if not missing]


def suggestion(elements: Iterable[str]) -> str:
    """Return a sentence that names models for some elements, or those that lack the fewest."""
    wanted = set(elements)
    missing = _missing_elements(wanted)
    if names := [name for name, lacking in missing.items() if not lacking]:
        return f"Models with all elements of this structure: {', '.join(names)}"
    text = "No shipped or registered model knows all elements of this structure: train one"
    fewest = min(map(len, missing.values()), default=len(wanted))
    if fewest == len(wanted):  # none knows any of them
        return text
    nearest = [
        f"{name} (without {', '.join(lacking)})"
        for name, lacking in missing.items()
        if len(lacking) == fewest
    ]
    return f"{text}. The nearest: {', '.join(nearest)}"


def _missing_elements(elements: Iterable[str]) -> dict[str, list[str]]:
    """Return the elements that each shipped or registered model lacks, by its name."""
    wanted = set(elements)
    missing = {}
    for name, folder in sorted(models_for_work().items()):
        try:
            known = read_card(folder).potential.get("elements", ())
        except (OSError, ValueError):  # a damaged model suits nothing
            continue
        missing[name] = sorted(wanted - set(known))
    return missing
