"""The figures of the source: each one finds in a small package what it should find."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def measure():
    sys.path.insert(0, str(ROOT))
    try:
        yield importlib.import_module("tools.code_figures.figures").measure
    finally:
        sys.path.remove(str(ROOT))


def write(folder: Path, **files: str) -> Path:
    """Write a package ``pkg``; ``a__b`` stands for ``a/b.py`` and ``init`` for ``__init__``."""
    for name, text in {"init": "", **files}.items():
        parts = [f"__{part}__" if part == "init" else part for part in name.split("__")]
        file = folder.joinpath("pkg", *parts).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text), encoding="utf-8")
    return folder


def row(figures, label: str):
    """Return the one row whose label begins so."""
    [found] = [r for r in figures.rows if r.label.startswith(label)]
    return found


def names(figures, kind: str) -> list[str]:
    """Return the names of what falls short, without files and lines."""
    return [line.split(" ", 1)[1] for line in figures.lists[kind]]


def test_lines_of_code_leave_out_blanks_comments_and_docstrings(measure, tmp_path):
    text = '''\
    """Module."""

    # comment
    X = """not a docstring
    # not a comment

    """  # four lines, one of them blank


    def f(
        a,
    ):
        """First line.

        More.
        """
        return a  # code
    '''
    figures = measure(write(tmp_path, a=text, b=""))
    assert row(figures, "lines of code").text == str(3 + 4)
    assert row(figures, "docstring/code").text == f"{5 / 7:.2f}"
    assert row(figures, "module code").text == "0/7/7"
    assert row(figures, "function code").text == "4/4/4"


def test_long_functions_and_files(measure, tmp_path):
    def of(length: int) -> str:
        return f"def f{length}(a):\n" + "    a += 1\n" * (length - 1)

    long = "# comment\n" * 350
    figures = measure(write(tmp_path, a=of(20) + of(21) + of(41), b=of(61), c=long + "x = 1\n"))
    assert row(figures, "functions >").text == "1 (2, 3)"
    assert [line.split()[1] for line in figures.lists["functions"]] == ["f61:", "f41:", "f21:"]
    assert figures.lists["files"] == ["pkg/c.py: 351 lines"]
    assert not row(figures, "function code").met
    assert not row(figures, "largest files").met


def test_complexity_ignores_noqa(measure, tmp_path):
    branches = "def f(a):  # noqa: C901\n" + "".join(f"    if a == {i}: a()\n" for i in range(11))
    figures = measure(write(tmp_path, a=branches + "def g(): pass\ndef h(): pass\n"))
    assert row(figures, "cyclomatic").text == "1/12/12"
    assert row(figures, "C901").text == "1"


def test_arguments_without_annotation(measure, tmp_path):
    text = """
    class A:
        def f(self, a: int, *b, c=1) -> None: ...
        @staticmethod
        def g(d): ...
    """
    assert row(measure(write(tmp_path, a=text)), "arguments").text == "25 % (1 of 4)"


SHAPES = """
from collections.abc import Callable
from typing import NamedTuple
Vector = Float64[Tensor, " n"]
Solver = Callable[[Tensor], Tensor]

def shaped(a: Float64[Tensor, "n 3"] | None, b: "Int64[np.ndarray, '2 n']") -> Vector: ...
def no_arrays(a: int, b: dict[str, float]) -> str: ...
def argument(a: Tensor, b: Float[Tensor, "n"]) -> None: ...
def result() -> tuple[Float[Tensor, ""], np.ndarray]: ...
def no_shape(a: Float[Tensor]) -> None: ...
def quoted(a: "list[torch.Tensor]") -> None: ...
def by_alias(solve: Solver) -> None: ...
def _hidden(*a: Tensor) -> None: ...
class Open:
    def __init__(self, a: Tensor): ...
    def _hidden(self, a: Tensor): ...
    def outer(self):
        def inner(a: Float[Tensor, "n"]): ...
class Record(NamedTuple):
    a: Float[Tensor, "n"]
    b: Tensor
class _Record(NamedTuple):
    a: Float[Tensor, "n"]
"""


def test_arrays_without_shapes(measure, tmp_path):
    figures = measure(write(tmp_path, a=SHAPES, _b="def open(a: NDArray): ..."))
    assert names(figures, "shapes") == [
        "argument: a (public)",
        "result: return (public)",
        "no_shape: a (public)",
        "quoted: a (public)",
        "by_alias: solve (public)",
        "Open.__init__: a (public)",
        "Record: b (public)",
        "open: a (private)",
        "_hidden: a (private)",
        "Open._hidden: a (private)",
    ]
    assert row(figures, "public signatures").text == "12 % (1 of 8)"
    assert row(figures, "private signatures").text == "40 % (2 of 5)"


UNITS = '''
def good(positions: Float64[Tensor, "n 3"]) -> None:
    """Take positions in Å."""
def also_good(net_charge: float, pressure: float) -> None:
    """Take numbers.

    Parameters
    ----------
    net_charge
        In e.
    """
def bad(cutoff: float) -> None:
    """Take a cutoff, e.g. a long one, of the second V."""
def no_quantity(cell: bool, n_charges: float, energy_weight: float, charges: Int64[Tensor, "n"]):
    """Take switches and counts."""
def cell_volume(atoms: Atoms) -> float:
    """Return how large it is."""
def summary(atoms: Atoms) -> float | None:
    """Return the largest force."""
def aside(atoms: Atoms) -> float:
    """Return a number that enters the energy."""
def unitless(width: float) -> None:
    """Take a dimensionless width."""
def _hidden(cutoff: float):
    """Nothing."""
class Thing:
    """Thing.

    Parameters
    ----------
    cutoff
        In Å.
    """
    def __init__(self, cutoff: float): ...
class Other:
    """Other."""
    def __init__(self, cutoff: float): ...
@dataclass(frozen=True)
class Record:
    """Record."""
    energy: float
    """eV."""
    mass: float
    """Of the atom."""
    temperature: float
    name: str
@dataclass
class Listed:
    """Listed.

    Parameters
    ----------
    energy
        In eV.
    mass
        Of the atom.
    """
    energy: float
    mass: float
'''


def test_quantities_without_units(measure, tmp_path):
    figures = measure(write(tmp_path, a=UNITS))
    assert names(figures, "units") == [
        "bad: cutoff",
        "cell_volume: return",
        "summary: return",
        "Other.__init__: cutoff",
        "Record.mass: mass",
        "Record.temperature: temperature",
        "Listed.mass: mass",
    ]
    assert row(figures, "units").text == "46 % (6 of 13)"


@pytest.mark.parametrize(
    "text",
    [
        "in e.",
        "In e.",
        "e.",
        "K; not more",
        "eV/Å³",
        "(e)",
        "0.3 e or",
        "e·Å",
        "1/cm",
        "in V/Å",
        "%",
    ],
)
def test_units_are_recognized(measure, tmp_path, text):
    module = f'class R(NamedTuple):\n    charge: float\n    """{text}"""\n'
    assert measure(write(tmp_path, a=module)).lists["units"] == []


@pytest.mark.parametrize(
    "text", ["e.g. one", "of V", "second", "E", "a 3 V k_B T", "unit cell", ""]
)
def test_words_are_no_units(measure, tmp_path, text):
    module = f'class R(NamedTuple):\n    charge: float\n    """{text}"""\n'
    assert names(measure(write(tmp_path, a=module)), "units") == ["R.charge: charge"]


RAISES = '''
def good():
    """Do it.

    Raises
    ------
    ValueError
        Always.
    """
    raise ValueError
def bad():
    """Do it. Raises ValueError."""
    for x in y:
        try: ...
        except KeyError as error:
            raise ValueError from error
def passes_on():
    """Do it."""
    try: ...
    except ValueError:
        raise
def inner():
    """Do it."""
    def f(): raise ValueError
def todo():
    """Do it."""
    raise NotImplementedError("subclasses do")
def _hidden(): raise ValueError
def __getattr__(name): raise AttributeError(name)
class A:
    """A."""
    def __post_init__(self): raise ValueError
    def __call__(self): raise ValueError
    @abstractmethod
    def f(self): raise ValueError
'''


def test_errors_that_no_section_names(measure, tmp_path):
    figures = measure(write(tmp_path, a=RAISES))
    assert names(figures, "raises") == ["bad", "A.__call__", "A"]
    assert row(figures, "public functions that raise").text == "25 % (1 of 4)"


def test_undocumented_definitions(measure, tmp_path):
    text = 'def f(): ...\ndef g():\n    """G."""\nclass A:\n    def h(self): ...\ndef _i(): ...\n'
    assert names(measure(write(tmp_path, a=text)), "documented") == ["f", "A.h", "A"]


def test_cycles_are_found_through_exports_and_inside_functions(measure, tmp_path):
    files = {
        "a": "from pkg.part import X",
        "part__init": "from pkg.part.x import X",
        "part__x": "def f():\n    from .. import b\n",
        "b": "import pkg.a",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg import d\n",
        "d": "from pkg import c",
    }
    figures = measure(write(tmp_path, **files))
    assert figures.lists["cycles"] == ["pkg.a <-> pkg.b <-> pkg.part.x"]
    assert not row(figures, "import cycles").met


LAYOUT = """
LINE = ("low", "wing.one", "wing.two", "high")
BRANCHES = {"side": "low", "validation": "wing.one"}
FOR_VALIDATION = {"side"}
FOR_THE_COMMAND_LINE = {"side"}
"""


def test_arrows_against_the_declared_order(measure, tmp_path):
    files = {
        "init": "__version__ = '1'",
        "low": "import pkg.high",
        "wing__init": "",
        "wing__one": "from pkg.wing import two",
        "wing__two": "from pkg.wing import one",
        "side": "import pkg.low, pkg.wing.one",
        "validation": "import pkg.side, pkg.wing.one, pkg.wing.two",
        "high": "import pkg.side\nfrom pkg.low import x\nfrom pkg import __version__",
    }
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_layout.py").write_text(LAYOUT, encoding="utf-8")
    figures = measure(write(tmp_path, **files))
    assert names(figures, "arrows") == [
        "pkg.high imports pkg",
        "pkg.low imports pkg.high",
        "pkg.side imports pkg.wing.one",
        "pkg.validation imports pkg.wing.two",
        "pkg.wing.one imports pkg.wing.two",
    ]


def test_arrows_against_a_guessed_order(measure, tmp_path):
    files = {"a": "", "b": "import pkg.a", "c": "import pkg.a, pkg.b"}
    assert measure(write(tmp_path, **files)).lists["arrows"] == []
    many = "from pkg.c import x\nimport pkg.a\n"
    figures = measure(
        write(tmp_path, a="import pkg.c.y", b__x="", c__init="", c__y=many, c__z=many)
    )
    assert names(figures, "arrows") == ["pkg.a imports pkg.c.y"]


def test_names_that_are_exported(measure, tmp_path):
    files = {"init": "__all__ = ['f']\n", "a": "__all__ = ('g', 'h')\ndef g(): ...\ndef _i(): ..."}
    assert row(measure(write(tmp_path, **files)), "names in top").text == "1 (3; 1)"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.code_figures", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_table_of_several_checkouts_and_check(tmp_path):
    good = write(tmp_path / "good", a="x = 1\n")
    poor = write(tmp_path / "poor", a="def f(a: Tensor): ...\n")
    both = run(str(poor), str(good), "--check")
    assert both.returncode == 0, both.stderr
    assert "|  | poor | good | aim |" in both.stdout
    assert (
        "| public signatures with shapes | 0 % (0 of 1) ✗ | 100 % (0 of 0) | >= 100 |"
        in both.stdout
    )
    failed = run(str(poor), "--check", "--list", "shapes")
    assert failed.returncode == 1
    assert failed.stdout == "pkg/a.py:1 f: a (public)\n"
    assert "missed: public signatures with shapes is 0 % (0 of 1), aim >= 100" in failed.stderr
    assert "no package" in run(str(tmp_path / "nowhere")).stderr


def test_phicalc_meets_the_aims():
    checked = run("--check")
    assert checked.returncode == 0, checked.stderr
