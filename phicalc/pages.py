"""HTML pages: one style, nothing loaded from elsewhere."""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;color:#1d2126;max-width:1200px;margin:2em auto;"
    "padding:0 1em}h1{font-size:1.35em}img{width:100%}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.3em .8em;border-bottom:1px solid #e6e8eb}"
    "small{display:block;color:#6a7078}"
)


def page(title: str, body: str, style: str = "") -> str:
    """Return a whole page.

    Parameters
    ----------
    title
        Heading, as plain text.
    body
        Everything below the heading, as HTML.
    style
        Style sheet of this kind of page, beside `STYLE`.
    """
    heading = escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{heading}</title><style>{STYLE}{style}</style></head>\n"
        f"<body><h1>{heading}</h1>\n{body}</body></html>\n"
    )


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return a table of plain texts as HTML."""
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in header) + "</tr>"]
    lines = lines if header else []
    lines += [
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    ]
    return "<table>" + "\n".join(lines) + "</table>\n"
