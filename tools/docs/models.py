"""Table of the shipped models, and a page for each, from their cards and their ``README.md``."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from phicalc.card import ModelCard
from phicalc.certificate import CERTIFICATE_FILE, Certificate, read_certificate
from phicalc.checkpoint import read_card
from phicalc.doctor import REFERENCE_FILE, reference_structures
from phicalc.info import describe_model, model_page
from phicalc.pages import page
from phicalc.registry import BENCHMARKS
from phicalc.view import view_part

from .markdown import REPOSITORY, ROOT, embedded, first_table, table

MODELS = ROOT / "models"
#: Where models for work lie in it, and those made to compare methods.
LEVELS = ("*", f"{BENCHMARKS}/*")
HEADER = ("model", "elements", "for", "level of theory", "trained on", "NPT", "charge", "forces",
          "step", "license")  # fmt: skip
#: What of `describe_model` a page leaves out: it stands elsewhere on the page, or only here.
HIDDEN = ("folder", "limit", "data split", "data files", "metric")
#: How the table of certificates writes the outcome of a check.
MARKS = {"passed": "✓", "failed": "✗", "not applicable": "", "not run": "?"}
#: Where `tests/benchmarks/RESULTS.md` has the time of a step of each model.
STEP_HEADING = "## A step with each shipped model"


def folders() -> dict[str, Path]:
    """Return the folders of the shipped models by name: those for work, then those to compare."""
    return {path.parent.name: path.parent for level in LEVELS for path in _cards(level)}


def shipped(level: str = LEVELS[0]) -> dict[str, ModelCard]:
    """Return the cards of the shipped models by name: those for work, or those of a level."""
    return {path.parent.name: read_card(path.parent) for path in _cards(level)}


def _cards(level: str) -> list[Path]:
    """Return the files of cards."""
    return sorted(MODELS.glob(f"{level}/card.json"))


def model_table(link: str, level: str = LEVELS[0]) -> str:
    """Return the table of models; `link` is the address of a model's page, with ``NAME``."""
    rows = [_row(name, card, link) for name, card in shipped(level).items()]
    return table(HEADER, rows)


def license_table() -> str:
    """Return the table of licenses of the models, and of what they were trained on."""
    cards = {name: read_card(folder) for name, folder in folders().items()}
    rows = [(f"`{name}`", c.license, c.data["source"]) for name, c in cards.items()]
    return table(("model", "license", "training data"), rows)


def certificate_table() -> str:
    """Return what the certificates beside the models say: a row for each check."""
    found = {
        path.parent.name: read_certificate(path)
        for level in LEVELS
        for path in sorted(MODELS.glob(f"{level}/{CERTIFICATE_FILE}"))
    }
    checks = dict.fromkeys(each.check for one in found.values() for each in one.outcomes)
    marks = {
        name: {each.check: MARKS[each.status] for each in one.outcomes}
        for name, one in found.items()
    }
    rows = [[f"`{check}`", *(own.get(check, "?") for own in marks.values())] for check in checks]
    passed = [f"{one.count('passed')} of {_applying(one)}" for one in found.values()]
    return table(("check", *found), [*rows, ["passed", *passed]]) if found else ""


def _applying(certificate: Certificate) -> int:
    """Return the number of checks that apply to a model, of those that were asked for."""
    return len(certificate.outcomes) - certificate.count("not applicable")


def model_pages() -> dict[str, str | Path]:
    """Return the pages about models: addresses, with text or the file that holds them."""
    pages: dict[str, str | Path] = {"models/index.md": _overview()}
    for name, folder in folders().items():
        card = read_card(folder)
        pages[f"models/{name}.md"] = _page(folder, card)
        pages[f"models/{name}.png"] = folder / "parity.png"
        if (folder / CERTIFICATE_FILE).is_file():
            pages[f"models/{name}-certificate.html"] = model_page(str(folder))
        if (folder / REFERENCE_FILE).is_file():
            view = view_part(_with_charges(folder))
            pages[f"models/{name}-view.html"] = page(f"Charges of {name}", view)
    return pages


def purpose(card: ModelCard) -> str:
    """Return what a model is for: the description up to its first pause behind some words."""
    text = re.split(r", (?:small )?NequIP|: |; ", f"{card.description} ", maxsplit=1)[0]
    pause = text.find(", ", 25)
    return text[: pause if pause > 0 else None].strip(" .")


def signed(charge: float) -> str:
    """Return a charge as it is written: +1, 0, −1."""
    return f"{charge:+g}".replace("-", "−") if charge else "0"


def _row(name: str, card: ModelCard, link: str) -> list[str]:
    """Return the row of a model."""
    domain = card.domain
    isolated = domain.periodic is False if domain.isolated is None else domain.isolated
    kinds = ["molecules"] * isolated + ["periodic"] * bool(domain.periodic)
    low, high = card.charge_range or (0, 0)
    return [
        f"[`{name}`]({link.replace('NAME', name)})",
        " ".join(card.potential.get("elements", ())),
        purpose(card),
        re.split(r" \(|,|/", card.level_of_theory)[0],
        ", ".join(kinds),
        "yes" if domain.stress else "no",
        signed(low) if low == high else f"{signed(low)} … {signed(high)}",
        _error(card),
        _speed(name),
        re.split(r" \(|;", card.license)[0],
    ]


def _error(card: ModelCard) -> str:
    """Return the error of forces on frames kept out, marked if they chose the epoch."""
    kind = "test" if "forces_rmse" in card.metrics.get("test", {}) else "valid"
    error = f"{card.metrics[kind]['forces_rmse']:.1f}"
    return error if kind == "test" else f"{error}*"


def _speed(name: str) -> str:
    """Return the time of a step, if RESULTS has one."""
    results = (ROOT / REPOSITORY["results.md"]).read_text(encoding="utf-8")
    lines = first_table(results, STEP_HEADING).splitlines()[2:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    steps = {model: f"{step} ms / {atoms}" for model, _, atoms, step, _ in rows}
    return steps.get(name, "–")


def _overview() -> str:
    """Return the page with the table of models."""
    return (
        "# The shipped models\n\n"
        "Made from the cards of the models; `phicalc models` prints a table like it, and "
        "`phicalc info NAME` a whole card. [Choose a model](../choose.md) says which one to "
        "take, and when none will do.\n\n"
        + model_table("NAME.md")
        + "\n**forces**: root mean square error in meV/Å on frames that were not trained on; a "
        "star marks frames that chose the epoch, which flatters a little. **step**: energy, "
        "forces and charges for so many atoms, compiled, float32, one thread, as in "
        "[speed and accuracy](../results.md). **NPT**: whether stress was trained on. "
        "Certificates: what `phicalc validate` finds ([certificates](../certificates.md)).\n"
        "\n## To compare methods\n\nOn the sets of the papers that phicalc implements, and with "
        "the Φ-Module in place of Coulomb's law. They load by name, and are not for work.\n\n"
        + model_table("NAME.md", LEVELS[1])
        + _certificates()
    )


def _certificates() -> str:
    """Return the part of the page about certificates; nothing as long as no model has one."""
    made = certificate_table()
    return made and (
        "\n## Certificates\n\nAs `phicalc validate NAME` has written them beside the models: "
        "✓ passed, ✗ failed, ? not run, empty where a check does not apply. The page of each "
        "model has the figures.\n\n" + made
    )


def _page(folder: Path, card: ModelCard) -> str:
    """Return the page of a model: limits first, then what its README and its card say."""
    name, rows = folder.name, describe_model(str(folder))
    shown = {key: text for key, text in rows.items() if not key.startswith(HIDDEN)}
    limits = "\n".join(f"    - {text}" for text in card.limits)
    readme = (folder / "README.md").read_text(encoding="utf-8").split("\n", 1)[1]
    readme = readme.replace("](parity.png)", f"]({name}.png)")
    parts = [
        f"# {name}\n",
        f'!!! warning "Limits, before anything else"\n\n{limits}\n',
        f'```python\nfrom phicalc import PhiCalculator\n\ncalc = PhiCalculator("{name}")\n```\n',
        readme.strip() + "\n",
        *_view(folder),
        "## Card\n",
        table(("", ""), [(key, text) for key, text in shown.items()]),
        "## Errors\n",
        _errors(card),
    ]
    if (folder / CERTIFICATE_FILE).is_file():
        parts.append(f"[The whole certificate, with pictures]({name}-certificate.html)\n")
    return "\n".join(parts)


def _with_charges(folder: Path) -> list[Atoms]:
    """Return the structures of a model's reference values, with its energies and charges."""
    records = json.loads((folder / REFERENCE_FILE).read_text(encoding="utf-8"))
    frames = reference_structures(folder)
    for atoms, record in zip(frames, records, strict=True):
        values = {name: record[name] for name in ("energy", "charges") if name in record}
        atoms.calc = SinglePointCalculator(atoms, **values)
    return frames


def _view(folder: Path) -> list[str]:
    """Return the part of the page with the 3D view, if the model has structures to show."""
    if not (folder / REFERENCE_FILE).is_file():
        return []
    return [
        "## Charges in 3D\n",
        "Structures to compare an installation with (`phicalc doctor`), with the charges that this "
        "model gives them; `phicalc view` makes such pages.\n",
        embedded(f"{folder.name}-view.html", f"charges of {folder.name} in 3D"),
    ]


def _errors(card: ModelCard) -> str:
    """Return the metrics of a card as a table."""
    units = card.metrics.get("units", {})
    sets = [name for name in ("train", "valid", "test") if card.metrics.get(name)]
    names = list(dict.fromkeys(name for each in sets for name in card.metrics[each]))
    rows = []
    for name in names:
        values = (card.metrics[each].get(name) for each in sets)
        texts = [f"{v:.4g}" if isinstance(v, float) else "–" for v in values]
        if set(texts) != {"–"}:
            quantity, _, kind = name.rpartition("_")
            rows.append([f"{quantity} ({kind.upper()})", units.get(quantity, ""), *texts])
    return table(("", "unit", *sets), rows)
