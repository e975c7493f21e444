"""Which models suit some elements: for messages to those who chose another one."""

from collections.abc import Iterable

from phicalc.checkpoint import available_models, read_card


def models_with(elements: Iterable[str]) -> list[str]:
    """Return the names of the shipped and registered models that know all of some elements."""
    wanted = set(elements)
    names = []
    for name, folder in sorted(available_models().items()):
        try:
            known = read_card(folder).potential.get("elements", ())
        except (OSError, ValueError):  # a damaged model suits nothing
            continue
        if wanted <= set(known):
            names.append(name)
    return names


def suggestion(elements: Iterable[str]) -> str:
    """Return a sentence that names the models for some elements, or says that there are none."""
    names = models_with(elements)
    if not names:
        return "No shipped or registered model knows all elements of this structure: train one"
    return f"Models with all elements of this structure: {', '.join(names)}"
