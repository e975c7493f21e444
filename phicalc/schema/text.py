"""YAML as settings use it: keys are words, each appears once, and nothing refers to elsewhere.

PyYAML follows YAML 1.1, in which ``1e-3`` is text, ``1:30`` is 90, ``010`` is 8 and ``2024-01-01``
is a date. Here numbers are decimal, and dates are text. Tags and merged keys do not exist.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

#: Levels of sections and lists that are read; PyYAML takes seconds, or dies, at some thousand.
MAX_DEPTH = 50

_INTEGER = re.compile(r"^[-+]?(0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"""^[-+]?(([0-9][0-9_]*)?\.[0-9][0-9_]*([eE][-+]?[0-9]+)?
        |[0-9][0-9_]*\.([eE][-+]?[0-9]+)?
        |[0-9][0-9_]*[eE][-+]?[0-9]+
        |\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$""",
    re.VERBOSE,
)


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader with the rules of this module."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse references and tags: an alias can nest without end or grow without bounds."""
        event = self.peek_event()
        line = event.start_mark.line + 1
        if event.anchor is not None:
            raise ValueError(
                f"line {line}: anchors and aliases (&{event.anchor}, *{event.anchor}) are not "
                "read; write the value out"
            )
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"line {line}: the tag {event.tag!r} is not read; remove it")
        if self.depth == MAX_DEPTH:
            raise ValueError(f"line {line}: sections and lists nest deeper than {MAX_DEPTH} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        """Make a section of keys, each a text that appears once."""
        seen = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                kind = "list" if isinstance(key_node, yaml.SequenceNode) else "section"
                raise ValueError(f"line {line}: a key must be a word, got a {kind}")
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ValueError(
                    f"line {line}: a key must be a word, and YAML reads {key_node.value!r} as "
                    f"{key!r}; put it in quotes if it is one"
                )
            if key in seen:
                raise ValueError(f"the key {key!r} appears twice (line {line}); keep one of them")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _resolvers() -> dict[str, list[tuple[str, Any]]]:
    """Return the rows of PyYAML's table of words that may stay: truth values and null."""
    kept = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")
    return {
        first: [(tag, pattern) for tag, pattern in rows if tag in kept]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_StrictLoader.yaml_implicit_resolvers = _resolvers()
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789"))
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def parse_yaml(text: str) -> Any:
    """Return what YAML text holds, read strictly (see the module's description).

    Raises
    ------
    ValueError
        For text that is not YAML, for keys that are not words or appear twice, and for anchors.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise ValueError(f"this is not valid YAML: {where}{problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"this is not valid YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the sections and keys of a YAML file; an empty file has none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For a file that is not UTF-8 text or not YAML, and for one that holds a list or a single
        value. The message does not name the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no configuration file {str(path)!r}: check the name and the folder"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the file is not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x});"
            " save it as UTF-8"
        ) from error
    values = parse_yaml(text)
    if values is None:
        return {}
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else f"only {values!r}"
        raise ValueError(f"expected keys and values (key: value), but the file holds {kind}")
    return values


def dump_yaml(settings: Mapping[str, Any]) -> str:
    """Return settings as YAML text in their own order."""
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=100)
