"""README and documentation: what they show runs, and what they name exists."""

from __future__ import annotations

import argparse
import ast
import contextlib
import doctest
import importlib
import io
import json
import re
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from phicalc.certificate import (
    CERTIFICATE_FILE,
    Certificate,
    Figure,
    Outcome,
    write_certificate,
)
from phicalc.checkpoint import read_card
from phicalc.cli.parser import VERBS, make_parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Pages that only the site has: `tools/docs` makes them.
MADE = re.compile(r"(\.\./)?(models/|api/|tutorials/|(results|cli|changelog|contributing)\.md)")
#: Names in shown code that stand for something of the reader's.
READERS = {"my_package", "lammps"}


class Block(NamedTuple):
    """A block of code of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Return all blocks in some languages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w+)[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text[: match.start()].count("\n") + 1
            found.append(Block(str(page.relative_to(ROOT)), line, match[1], match[2]))
    return [block for block in found if block.language in languages and "--8<--" not in block.text]


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield module and name of every import; an empty name for the module itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((str(node.module), alias.name) for alias in node.names)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of every line that calls phicalc."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and Path(words[0]).name == "phicalc":
            yield words[1:]


@pytest.fixture(scope="module")
def tools() -> Iterator[None]:
    """Make `tools.docs` importable."""
    sys.path.insert(0, str(ROOT))
    yield
    sys.path.remove(str(ROOT))


def test_the_checks_find_blocks():
    assert len(blocks("python")) > 8
    assert sum(1 for block in blocks("sh") for _ in commands(block.text)) > 20


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_shown_code_imports_what_exists(block):
    for module, name in imported(ast.parse(block.text)):
        if module.split(".")[0] in READERS:
            continue
        loaded = importlib.import_module(module)
        assert not name or hasattr(loaded, name), f"{module} has no {name}"


RUN = ["README.md", "docs/use/structures.md", "docs/use/properties.md", "docs/use/dynamics.md"]


@pytest.mark.parametrize("page", RUN)
def test_shown_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = [block for block in blocks("python") if block.page == page]
    assert shown
    for block in shown:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})


def modules_with_examples() -> list[str]:
    """Return the modules of the package with examples in their docstrings."""
    files = (ROOT / "phicalc").rglob("*.py")
    found = [path for path in files if ">>> " in path.read_text(encoding="utf-8")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found]
    return sorted(name.removesuffix(".__init__") for name in names)


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_of_docstrings_run(module):
    loaded = importlib.import_module(module)
    assert doctest.testmod(loaded, optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_shown_commands_are_understood(block):
    for words in commands(block.text):  # a wrong one exits with code 2, after saying why
        make_parser().parse_args(words, argparse.Namespace(verb=""))


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_shown_settings_are_settings(block):
    from phicalc.improvement import config_of
    from phicalc.training import config_from_dict

    values = yaml.safe_load(block.text)
    if "data" in values and "model" in values and "structures" not in values:
        config_from_dict(values)
    elif "structures" in values:
        file = [f"{name}={json.dumps(value)}" for name, value in values.items()]
        config_of(["x.xyz"], [word for word in file if not word.startswith("structures=")])


def test_links_lead_to_files():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "md_examples" / "README.md"]:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            made = MADE.match(target) and "docs" in page.parts
            outside = target.startswith(("http", "mailto"))
            assert made or outside or (page.parent / target).exists(), f"{page}: {target}"


def _address(heading: str) -> str:
    """Return the anchor that mkdocs gives a heading."""
    plain = re.sub(r"[*`]|\]\([^)]*\)|\[", "", heading).strip()
    plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def _sections(text: str) -> dict[str, str]:
    """Return a page, as "", and what stands below each of its headings, by anchor."""
    found = {"": text}
    text = re.sub(
        r"```.*?```", lambda block: block[0].replace("\n#", "\n #"), text, flags=re.DOTALL
    )
    headings = list(re.finditer(r"^(#+) (.*)$", text, re.MULTILINE))
    for number, match in enumerate(headings):
        deeper = (n for n in headings[number + 1 :] if len(n[1]) <= len(match[1]))
        end = next((n.start() for n in deeper), len(text))
        found[_address(match[2])] = text[match.start() : end]
    return found


def _page(name: str) -> str:
    """Return the text of a page of the site, written or made."""
    from tools.docs.markdown import REPOSITORY
    from tools.docs.models import model_pages
    from tools.docs.tutorials import cells_of

    if name.startswith("models/"):
        return str(model_pages()[name])
    if name.startswith("tutorials/"):
        script = (ROOT / "docs" / name).with_suffix(".py").read_text(encoding="utf-8")
        return "\n\n".join(
            cell.source if cell.kind == "markdown" else f"```python\n{cell.source}\n```"
            for cell in cells_of(script)
        )
    path = ROOT / REPOSITORY[name] if name in REPOSITORY else ROOT / "docs" / name
    return path.read_text(encoding="utf-8")


def _questions() -> list[tuple[str, str, str, str]]:
    """Return the questions of the table: question, answer, page, anchor."""
    text = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    found = []
    for question, answer, page in rows:
        if link := re.fullmatch(r" \[[^]]+\]\(([^)#]+)#?([^)]*)\) ", page):
            found.append((question.strip(), answer, link[1], link[2]))
        else:
            assert set(page) == {"-"} or page.strip() == "page", f"{question}: no link"
    return found


@pytest.mark.usefixtures("tools")
def test_questions_are_answered_two_clicks_from_the_start():
    assert "](faq.md)" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    questions = _questions()
    assert len({question for question, *_ in questions}) == len(questions) > 40
    for question, answer, page, anchor in questions:
        section = _sections(_page(page)).get(anchor)
        assert section is not None, f"{question}: {page} has no #{anchor}"
        for word in re.findall(r"`([^`]+)`", answer):  # what is promised in short stands there
            assert word in section, f"{question}: {page}#{anchor} does not speak of {word}"


@pytest.mark.usefixtures("tools")
def test_table_of_speed_is_that_of_the_results():
    from tools.docs.markdown import PEERS_HEADING, REPOSITORY, first_table

    results = (ROOT / REPOSITORY["results.md"]).read_text(encoding="utf-8")
    made = first_table(results, PEERS_HEADING)
    assert made.splitlines()[0].startswith("| float32 | `water-small` | `water-pbe0` | NEP4 |")
    assert [line.split("|")[1].strip() for line in made.splitlines()[2:]][0] == "water 192"
    assert "<!-- table of peers -->" in (ROOT / "docs/use/speed.md").read_text(encoding="utf-8")
    assert first_table("# A\nx\n| a |\n| b |\n\n| c |\n", "# A") == "| a |\n| b |\n"
    for text in ("# B\n| a |\n", "# A\n# B\n| a |\n"):
        with pytest.raises(ValueError, match="no table below '# A'"):
            first_table(text, "# A")


def test_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    written = re.sub(r"<!-- models.*<!-- end of models -->", "", text, flags=re.DOTALL)
    assert len(text.splitlines()) <= 120
    assert len(written.split()) <= 900


@pytest.mark.usefixtures("tools")
def test_tables_of_models_and_licenses_are_those_of_the_cards():
    from tools.docs.markdown import between
    from tools.docs.models import license_table, model_table

    readme = ("README.md", model_table("models/NAME/README.md"))
    for name, table in (readme, ("models/LICENSES.md", license_table())):
        text = (ROOT / name).read_text(encoding="utf-8")
        made = between(text, "models", table)
        assert made == text, "the cards of the models have changed: run python -m tools.docs"
    with pytest.raises(ValueError, match="no lines"):
        between(text, "nothing", "")


@pytest.mark.usefixtures("tools")
def test_every_model_has_a_page_that_begins_with_its_limits():
    from tools.docs.models import folders, model_pages

    pages, found = model_pages(), folders()
    assert len(found) > 10
    for name, folder in found.items():
        card = read_card(folder)
        page = pages[f"models/{name}.md"]
        assert isinstance(page, str)
        assert card.limits
        assert page.index(card.limits[0]) < page.index("PhiCalculator")
        assert str(ROOT) not in page
        assert f'src="{name}-view.html"' in page
        assert '"charges": ' in str(pages[f"models/{name}-view.html"])
        assert f"]({name}.md)" in str(pages["models/index.md"])


@pytest.mark.usefixtures("tools")
def test_table_of_certificates_has_every_check_of_every_model(tmp_path, monkeypatch):
    from tools.docs import models

    def outcome(check, status, reason=""):
        figures = (Figure.of("size", 1.0, at_most=2.0),) if status == "passed" else ()
        return Outcome(check, check, status, reason, figures)

    found = {
        "one": [outcome("walls", "passed"), outcome("bonds", "failed", "no result")],
        "two": [outcome("walls", "not applicable", "no pairs"), outcome("drift", "passed")],
    }
    for name, outcomes in found.items():
        (tmp_path / name).mkdir()
        certificate = Certificate(name, "digest", "", ("H",), {}, tuple(outcomes))
        write_certificate(tmp_path / name / CERTIFICATE_FILE, certificate)
    (tmp_path / "three").mkdir()
    monkeypatch.setattr(models, "MODELS", tmp_path)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in models.certificate_table().splitlines()
    ]
    assert rows[0] == ["check", "one", "two"]
    assert rows[2:] == [
        ["`walls`", "✓", ""], ["`bonds`", "✗", "?"], ["`drift`", "?", "✓"],
        ["passed", "1 of 2", "1 of 1"],
    ]  # fmt: skip
    assert "## Certificates" in models._certificates()
    monkeypatch.setattr(models, "MODELS", tmp_path / "three")
    assert models._certificates() == ""


@pytest.mark.usefixtures("tools")
def test_every_model_is_spoken_of_where_one_is_chosen():
    from tools.docs.models import folders

    text = (ROOT / "docs" / "choose.md").read_text(encoding="utf-8")
    assert set(re.findall(r"models/([\w-]+)\.md", text)) == set(folders())


@pytest.mark.usefixtures("tools")
def test_reference_names_every_verb_and_every_public_name():
    from tools.docs.reference import api_pages, command_pages

    page = command_pages()["cli.md"]
    assert [f"## phicalc {verb}\n" in page for verb in VERBS] == [True] * len(VERBS)
    assert "`--temperature-end`" in page
    pages = api_pages()
    for module, name in (("phicalc", "PhiCalculator"), ("phicalc.md", "MDConfig"),
                         ("phicalc.relax", "relax"), ("phicalc.graph", "AtomicGraph")):  # fmt: skip
        assert f"heading: {module}.{name}\n" in pages[f"api/{module}.md"]
    assert "See [phicalc.graph.AtomicGraph]" in pages["api/phicalc.md"]
    lines = "\n".join(pages.values()).splitlines()
    objects = [line for line in lines if line.startswith("::: ")]
    assert len(objects) == len(set(objects)) > 80


DOCSTRING = """What it is.

>>> 1 + 1  # doctest: +SKIP
2

======== ====== =================
name     unit   what
======== ====== =================
`energy` eV     of everything,
                atoms and all
======== ====== =================

Otherwise::

    code
"""


@pytest.mark.usefixtures("tools")
def test_docstrings_become_markdown():
    from tools.docs.docstrings import readable

    text = readable(DOCSTRING)
    assert "```pycon\n>>> 1 + 1\n2\n```\n" in text
    assert "| name | unit | what |\n| --- | --- | --- |\n" in text
    assert "| `energy` | eV | of everything, atoms and all |" in text
    assert "Otherwise:\n\n    code" in text
    assert "===" not in text


TUTORIAL = """# %% [markdown]
# # A title
#
# Words.

# %%
import matplotlib.pyplot as plt

print("said")
plt.plot([1, 2])
x = 3
_ = open("view.html", "w").write("3D")

# %%
x + 1
"""


@pytest.mark.usefixtures("tools")
def test_tutorials_become_pages_and_notebooks(tmp_path):
    (tmp_path / "tiny.py").write_text(TUTORIAL, encoding="utf-8")
    command = [sys.executable, "-m", "tools.docs.tutorials", str(tmp_path / "tiny.py"), "."]
    command[-1] = str(tmp_path)
    subprocess.run(command, cwd=ROOT, check=True, env={"MPLBACKEND": "Agg", "PATH": ""})
    page = (tmp_path / "tiny.md").read_text(encoding="utf-8")
    assert page.startswith("# A title\n\nWords.\n")
    assert '```text title="output"\nsaid\n' in page
    assert '```text title="output"\n4\n```' in page
    assert "![what the block above draws](tiny-0.png)" in page
    assert (tmp_path / "tiny-0.png").is_file()
    assert 'src="tiny-view.html"' in page
    assert (tmp_path / "tiny-view.html").read_text() == "3D"
    notebook = json.loads((tmp_path / "tiny.ipynb").read_text(encoding="utf-8"))
    assert [cell["cell_type"] for cell in notebook["cells"]] == ["markdown", "code", "code"]


@pytest.mark.usefixtures("tools")
def test_tutorials_stand_in_the_navigation_and_fail_loudly(tmp_path):
    from tools.docs.tutorials import cells_of, execute, tutorials

    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for script in tutorials():
        assert f"tutorials/{script.stem}.md" in navigation
        for cell in cells_of(script.read_text(encoding="utf-8")):
            if cell.kind == "code":
                ast.parse(cell.source)
    with pytest.raises(ZeroDivisionError):
        execute(cells_of("# %%\n1 / 0\n"), tmp_path, "x")
