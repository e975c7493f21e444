"""What mkdocs calls: pages that are made are added to those that are written."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.docs import markdown, models, reference, tutorials

#: Where a page asks for the table of models, and for that of speed beside other potentials.
TABLE = "<!-- table of models -->"
PEERS = "<!-- table of peers -->"
_folder = tempfile.TemporaryDirectory(prefix="phicalc-docs-")


@cache
def _made() -> dict[str, dict[str, str | Path]]:
    """Return the pages that are made, by the section of the navigation that lists them."""
    return {"Models": models.model_pages(), "Python API": {**reference.api_pages()}}


def on_config(config: Any) -> Any:
    """Fill the sections of the navigation that list what is made."""
    _fill(
        config.nav,
        {name: [p for p in pages if p.endswith(".md")] for name, pages in _made().items()},
    )
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    pages: dict[str, str | Path] = {**reference.command_pages()}
    for made in _made().values():
        pages |= made
    for uri, name in markdown.REPOSITORY.items():
        pages[uri] = (markdown.ROOT / name).read_text(encoding="utf-8")
    run = os.environ.get("TUTORIALS", "yes") != "no"
    jobs = int(os.environ.get("JOBS", "2"))
    for path in tutorials.build_all(Path(_folder.name), run=run, jobs=jobs):
        pages[f"tutorials/{path.name}"] = path
    for uri, content in pages.items():
        where = {"abs_src_path": str(content)} if isinstance(content, Path) else {}
        text = {} if where else {"content": content}
        files.append(File.generated(config, uri, **text, **where))
    return files


def on_page_markdown(text: str, page: Any, **_: object) -> str:
    """Put tables where a page asks for them."""
    if PEERS in text:
        results = (markdown.ROOT / markdown.REPOSITORY["results.md"]).read_text(encoding="utf-8")
        text = text.replace(PEERS, markdown.first_table(results, markdown.PEERS_HEADING))
    if TABLE in text:
        text = text.replace(TABLE, models.model_table("models/NAME.md"))
    return text


def _fill(nav: list[Any], made: dict[str, list[str]]) -> None:
    """Put pages into the empty sections of a navigation, in place."""
    for entry in filter(lambda each: isinstance(each, dict), nav):
        for name, below in entry.items():
            if name in made:
                below += made[name]
            elif isinstance(below, list):
                _fill(below, made)


def on_shutdown() -> None:
    """Remove what the tutorials left."""
    _folder.cleanup()
