"""The history of a run: a file for programs, and one page for people."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from phicalc.certificate import Curve, Plot
from phicalc.certificate.page import draw
from phicalc.improvement.record import HISTORY_FILE, RoundRecord, write_record
from phicalc.pages import page, table
from phicalc.schema import dump_yaml
from phicalc.state import write_atomically

PAGE_FILE = "history.html"
STYLE = "img{width:auto;max-width:100%}pre{font-size:12px;background:#f6f7f8;padding:1em}"
HEADER = (
    "round", "labels", "found by", "chosen by", "outside before", "forces, valid (meV/Å)",
    "forces, test (meV/Å)", "certificate", "mended", "lost", "minutes",
)  # fmt: skip


def write_history(
    folder: Path,
    records: Sequence[RoundRecord],
    remarks: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Write ``history.json`` and ``history.html``.

    Parameters
    ----------
    folder
        Where to.
    records
        Of all rounds.
    remarks
        How the run ended, and what else is to be said.
    settings
        Of the run, as plain values.
    """
    document = {"remarks": list(remarks), "settings": settings, "rounds": list(records)}
    write_record(folder / HISTORY_FILE, document)
    write_atomically(folder / PAGE_FILE, history_page(records, remarks, settings).encode())


def history_page(
    records: Sequence[RoundRecord], remarks: Sequence[str], settings: Mapping[str, Any]
) -> str:
    """Return the page; arguments as of `write_history`."""
    rows = [_row(record, before) for record, before in _with_before(records)]
    parts = [*(f"<p>{escape(remark)}</p>" for remark in remarks), table(rows, HEADER)]
    if plots := _plots(records):
        source = b64encode(draw(plots)).decode()
        parts.append(f'<img src="data:image/png;base64,{source}" alt="errors and checks">')
    parts += [_details(record) for record in records]
    parts.append(f"<h2>Settings</h2><pre>{escape(dump_yaml(dict(settings)))}</pre>")
    return page("Active learning", "\n".join(parts), STYLE)


def _with_before(
    records: Sequence[RoundRecord],
) -> list[tuple[RoundRecord, RoundRecord | None]]:
    """Return each record with the one before it."""
    return list(zip(records, [None, *records], strict=False))


def _row(record: RoundRecord, before: RoundRecord | None) -> tuple[str, ...]:
    """Return the line of one round in the table."""
    return (
        str(record.number),
        f"{record.calls} ({record.total_calls})",
        _listed(record.found_by),
        _listed(record.chosen_by),
        "–" if record.outside is None else f"{record.outside:.0%}",
        _error(record, "valid"),
        _error(record, "test"),
        record.certificate or "none",
        ", ".join(record.mended(before)) or "–",
        ", ".join(record.lost(before)) or "–",
        f"{record.seconds / 60:.1f}",
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


def _error(record: RoundRecord, role: str) -> str:
    value = record.errors.get(f"{role}_forces_mae")
    return "–" if value is None else f"{value:.0f}"


def _plots(records: Sequence[RoundRecord]) -> list[Plot]:
    """Return errors and checks over the number of labels."""
    whole = [record for record in records if record.certificate]
    labels = [record.total_calls for record in whole]
    curves = []
    for role in ("valid", "test"):
        name = f"{role}_forces_mae"
        if all(name in record.errors for record in whole):
            values = [record.errors[name] for record in whole]
            curves.append(Curve.of(role, labels, values))
    checks = [
        Curve.of("passed", labels, [len(record.passed) for record in whole]),
        Curve.of("failed", labels, [len(record.failed) for record in whole]),
    ]
    errors = Plot("Forces", "labels", "mean absolute error (meV/Å)", tuple(curves))
    return [errors, Plot("Certificate", "labels", "checks", tuple(checks))] if whole else []


def _details(record: RoundRecord) -> str:
    """Return what failed in one round."""
    lists = (
        ("The certificate failed in", record.reasons),
        ("Runs of the model broke down", record.broken),
        ("The reference calculator failed", sorted(set(record.failures))),
    )
    parts = [f"<h2>Round {record.number}</h2>"]
    for title, texts in lists:
        if texts:
            items = "".join(f"<li>{escape(text)}</li>" for text in texts)
            parts.append(f"<p>{title}:</p><ul>{items}</ul>")
    return "\n".join(parts)
