"""What mkdocstrings calls for every object that it has read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from griffe import Extension

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.docs.docstrings import readable


class Readable(Extension):
    """Docstrings become Markdown."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Change the docstring of an object."""
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = readable(obj.docstring.value)
