"""The page of a certificate: a table of all checks, then each with its figures and pictures."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO

from matplotlib.axes import Axes

from phicalc.certificate.record import Certificate, Figure, Outcome, Plot
from phicalc.pages import page, table
from phicalc.pictures import GREY, new_figure

STYLE = (
    ".passed{color:#2c7a3f}.failed{color:#b00}.not{color:#6a7078}h3{margin-bottom:.2em}"
    "section{margin:1.6em 0;border-top:1px solid #e6e8eb}img{width:auto;max-width:100%}"
)
COLORS = ("#2f6db5", "#c8443a", "#3a8f5c", "#b07aa1", "#d98c21", "#5f6a75", "#17a2b8", "#8c564b")
#: Labels beyond this number would cover a plot.
MOST_LABELS = 8


def certificate_page(certificate: Certificate) -> str:
    """Return the certificate as an HTML page of its own, pictures included."""
    return page(f"Certificate of {certificate.subject}", certificate_body(certificate))


def certificate_body(certificate: Certificate) -> str:
    """Return the certificate as the part of a page, pictures included."""
    facts = {
        "result": certificate.summary,
        "elements": " ".join(certificate.elements),
        "model": certificate.model_sha256 or "–",
        "time": f"{certificate.seconds / 60:.1f} min",
        "phicalc": certificate.phicalc_version,
    }
    overview = [
        (
            outcome.title,
            outcome.status,
            outcome.reason or ", ".join(each.name for each in outcome.figures if not each.passed),
            f"{outcome.seconds:.1f} s",
        )
        for outcome in certificate.outcomes
    ]
    parts = [
        f"<style>{STYLE}</style>",
        table(facts.items()),
        "<h2>Checks</h2>",
        table(overview, ("check", "result", "what failed, or why there is none", "time")),
        *map(_section, certificate.outcomes),
    ]
    return "\n".join(parts)


def _section(outcome: Outcome) -> str:
    """Return one check in detail."""
    word = outcome.status.split()[0]
    lines = [f'<section><h3>{escape(outcome.title)}: <span class="{word}">{outcome.status}</span>'
             f"</h3><small>{escape(outcome.check)}</small>"]  # fmt: skip
    if outcome.reason:
        lines.append(f"<p>{escape(outcome.reason)}</p>")
    if outcome.figures:
        rows = [(each.name, each.text, each.limit, _verdict(each)) for each in outcome.figures]
        lines.append(table(rows, ("figure", "value", "limit", "")))
    lines += [f"<p>{escape(note)}</p>" for note in outcome.notes]
    if outcome.plots:
        source = b64encode(draw(outcome.plots)).decode()
        titles = escape("; ".join(plot.title for plot in outcome.plots))
        lines.append(f'<img src="data:image/png;base64,{source}" alt="{titles}">')
    return "\n".join([*lines, "</section>"])


def _verdict(figure: Figure) -> str:
    """Return a word about one figure."""
    return "" if not figure.limited else "passed" if figure.passed else "failed"


def draw(plots: Sequence[Plot]) -> bytes:
    """Return plots, three in a row, as a PNG file."""
    columns = min(len(plots), 3)
    rows = -(-len(plots) // columns)
    figure, panels = new_figure(rows, columns, width=4.3, height=3.2)
    for axes, plot in zip(panels, plots, strict=False):
        _draw(axes, plot)
    for axes in panels[len(plots) :]:
        axes.set_visible(False)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    return stream.getvalue()


def _draw(axes: Axes, plot: Plot) -> None:
    """Draw the curves of one plot: what should come out dashed, in the color of its partner."""
    labels = [curve.label for curve in plot.curves if not curve.reference]
    for number, curve in enumerate(plot.curves):
        partner = labels.index(curve.label) if curve.label in labels else number
        style = "--" if curve.reference else "-"
        marker = "o" if len(curve.x) < 15 else ""
        label = f"{curve.label} (reference)" if curve.reference else curve.label
        axes.plot(
            curve.x, curve.y, linestyle=style, marker=marker, markersize=3, linewidth=1.3,
            color=COLORS[partner % len(COLORS)], label=label,
        )  # fmt: skip
    axes.axhline(0, color=GREY, linewidth=0.6)
    if plot.y_range is not None:
        axes.set_ylim(*plot.y_range)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.set_title(plot.title, fontsize=10)
    if 1 < len(plot.curves) <= MOST_LABELS:
        axes.legend(frameon=False, fontsize=7)
