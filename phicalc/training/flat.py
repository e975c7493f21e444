"""Settings of a model as they stood before `backbone`, `head` and `feedback` became sections."""

from collections.abc import Mapping
from typing import Any

import yaml

from phicalc.upgrades import BACKBONE_OPTIONS, FEEDBACK_OPTIONS, HEAD_OPTIONS, with_sections


def refuse_flat_settings(model: Mapping[str, Any]) -> None:
    """Raise for options that stand in ``model`` itself, naming the sections that have them now.

    Raises
    ------
    ValueError
        With the new place of every such option and, where it can be derived, the new block.
    """
    model = {key: _bare(value) for key, value in model.items()}
    moves = [_move(str(key), model) for key in model if str(key) in _PLACES]
    if not moves:
        return
    message = "; ".join(moves) + "; backbone, head and feedback are sections with options now"
    if not any(isinstance(model.get(name), Mapping) for name in ("backbone", "head", "feedback")):
        sections = with_sections(model)
        block = {name: sections[name] for name in ("backbone", "head", "feedback")}
        text = yaml.safe_dump(block, default_flow_style=True, sort_keys=False, width=10_000)
        message += f". The same model reads {text.strip()[1:-1]}"
    raise ValueError(message)


def _bare(section: Any) -> Any:
    """Return ``{name: qeq}`` as ``qeq``, everything else as it is."""
    is_name = isinstance(section, Mapping) and set(section) == {"name"}
    return section["name"] if is_name else section


def _move(key: str, model: Mapping[str, Any]) -> str:
    """Say where one flat option stands now."""
    places = _PLACES[key]
    section = next(iter(places.values())).partition(".")[0]
    default = "qeq" if section == "head" else "none"
    chosen = model.get("charge_feedback" if section == "feedback" else section, default)
    chosen = chosen.get("name") if isinstance(chosen, Mapping) else chosen
    if section == "head" and chosen in HEAD_OPTIONS and chosen not in places:
        owners = " or ".join(map(repr, places))
        return f"'model.{key}' is an option of the head {owners}, not of {chosen!r}: remove it"
    place = places.get(str(chosen), next(iter(places.values())))
    note = ""
    if key == "smearing":
        note = " (true where it was 'trained', false where it was 'fixed')"
    return f"'model.{key}' is now 'model.{place}'{note}"


def _places() -> dict[str, dict[str, str]]:
    """Return the new place of each flat option for each class that has it."""
    places: dict[str, dict[str, str]] = {"charge_feedback": {"": "feedback"}}
    for section, classes in (
        ("backbone", {"nequip": BACKBONE_OPTIONS}),
        ("head", HEAD_OPTIONS),
        ("feedback", FEEDBACK_OPTIONS),
    ):
        for name, options in classes.items():
            for old, new in options.items():
                places.setdefault(old, {})[name] = f"{section}.{new}"
    return places


_PLACES = _places()
