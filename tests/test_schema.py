"""The one reader of settings: types, words, ranges, NumPy values, YAML."""

import dataclasses
import math
import re
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

from phicalc.schema import (
    AtLeast,
    Between,
    Distinct,
    Even,
    NonFinite,
    NotEmpty,
    Positive,
    apply_override,
    build,
    checked,
    dump_yaml,
    parse_yaml,
    read_yaml,
    settings,
    to_plain,
)


@settings
@dataclass(frozen=True)
class Inner:
    rate: Annotated[float, Positive] = 0.1
    name: Literal["adam", "soap"] = "soap"

    def __post_init__(self):
        checked(self)


class Head:
    """A tagged section that reads itself."""

    @classmethod
    def from_settings(cls, value, where):
        if value != "qeq":
            raise ValueError(f"{where!r} is no head: {value!r}")
        return cls()


@settings
@dataclass(frozen=True)
class Settings:
    files: Annotated[tuple[str, ...], NotEmpty, Distinct]
    layers: int = 2
    share: Annotated[float, Between(0, 1, "[)")] = 0.0
    threads: Annotated[int, AtLeast(1)] | None = None
    gate: bool = True
    mode: Literal["auto", True, False, 3] = "auto"
    mesh: tuple[Annotated[int, Even], int, int] | None = None
    range: tuple[float, float] = (0.0, 1.0)
    energies: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    free: Annotated[float, NonFinite] = 0.0
    inner: Inner = Inner()
    head: Head | None = None

    def __post_init__(self):
        checked(self)


BAD = [
    ({"layers": 1.5}, "'layers' must be a whole number, got 1.5 (float)"),
    ({"layers": "8"}, "'layers' must be a whole number, got '8' (str)"),
    ({"layers": True}, "'layers' must be a whole number, got True (bool)"),
    ({"layers": None}, "'layers' must be a whole number, got None (NoneType)"),
    ({"gate": 1}, "'gate' must be true or false, got 1 (int)"),
    ({"share": "a"}, "'share' must be a number, got 'a' (str)"),
    ({"share": math.nan}, "'share' must be a finite number, got nan"),
    ({"share": math.inf}, "'share' must be a finite number, got inf"),
    ({"share": 1.0}, "'share' must be in [0, 1), got 1.0"),
    ({"threads": 0}, "'threads' must be ≥ 1, got 0"),
    ({"mode": "atuo"}, "'mode' must be one of 'auto', True, False, 3, got 'atuo'. "
                       "Did you mean 'auto'?"),
    ({"mode": "true"}, "'mode' must be one of 'auto', True, False, 3, got 'true'. "
                       "Did you mean True?"),
    ({"mode": 1}, "'mode' must be one of 'auto', True, False, 3, got 1"),
    ({"mesh": [4, 4]}, "'mesh' must be a list of 3 values, got [4, 4]"),
    ({"mesh": [5, 4, 4]}, "'mesh[0]' must be even, got 5"),
    ({"mesh": 4}, "'mesh' must be a list, got 4"),
    ({"files": []}, "'files' must not be empty, got ()"),
    ({"files": ["a", "a"]}, "'files' must not repeat an entry, got ('a', 'a')"),
    ({"files": "a"}, "'files' must be a list, got 'a'"),
    ({"energies": {"H": "x"}}, "'energies.H' must be a number, got 'x' (str)"),
    ({"energies": [1]}, "'energies' must be a section of keys, got [1]"),
    ({"inner": {"rate": 0}}, "'inner.rate' must be positive, got 0.0"),
    ({"inner": {"name": "SOAp "}}, "'inner.name' must be one of 'adam', 'soap', got 'SOAp '. "
                                   "Did you mean 'soap'?"),
    ({"inner": {"rat": 1}}, "unknown key 'inner.rat'. Did you mean 'rate'? Known keys: name, rate"),
    ({"inner": 3}, "'inner' must be a section of keys, got 3"),
    ({"head": "qe"}, "'head' is no head: 'qe'"),
    ({"layres": 1}, "unknown key 'layres'. Did you mean 'layers'? Known keys: "),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "message"), BAD)
def test_python_and_yaml_get_the_same_sentence(wrong, message):
    given = {"files": ["a.xyz"], **wrong}
    with pytest.raises(ValueError, match="^" + re.escape(message)) as in_python:
        Settings(**given)
    with pytest.raises(ValueError, match="^" + re.escape(message)) as in_yaml:
        build(Settings, parse_yaml(dump_yaml(given)))
    assert str(in_python.value) == str(in_yaml.value)
    assert "\n" not in str(in_yaml.value)


def test_the_path_of_a_nested_section_is_named():
    with pytest.raises(ValueError, match=r"^'model\.inner\.rate' must be positive, got -1\.0$"):
        build(Settings, {"files": ["a"], "inner": {"rate": -1}}, "model")


def test_missing_keys_are_named_in_python_too():
    with pytest.raises(ValueError, match="missing key 'files'; it has no default"):
        Settings()
    with pytest.raises(ValueError, match="missing key 'files'; it has no default"):
        build(Settings, {})
    assert Settings(("a",)).files == ("a",)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("layers", np.int64(3), 3),
        ("layers", np.array(3, dtype=np.int8), 3),
        ("layers", torch.tensor(3), 3),
        ("share", np.float32(0.5), 0.5),
        ("share", np.longdouble(0.5), 0.5),
        ("share", np.int32(0), 0.0),
        ("share", Fraction(1, 4), 0.25),
        ("gate", np.bool_(False), False),
        ("mode", np.str_("auto"), "auto"),
        ("mode", np.int64(3), 3),
        ("mode", np.True_, True),
        ("mesh", np.array([4, 6, 8]), (4, 6, 8)),
        ("range", np.array([0, 2], dtype=np.float32), (0.0, 2.0)),
        ("files", np.array(["a", "b"]), ("a", "b")),
        ("files", [Path("a") / "b"], (str(Path("a") / "b"),)),
        ("energies", {"H": np.float32(0.5)}, {"H": 0.5}),
        ("notes", {"a": [np.float32(0.5)], "b": np.arange(2)}, {"a": [0.5], "b": [0, 1]}),
        ("free", -math.inf, -math.inf),
        ("inner", {"rate": np.float64(2)}, Inner(2.0)),
    ],
)
def test_numbers_of_numpy_become_those_of_python(name, value, expected):
    got = getattr(Settings(**{"files": ["a"], name: value}), name)
    assert got == expected
    assert type(got) is type(expected)
    if isinstance(got, tuple):
        assert [type(one) for one in got] == [type(one) for one in expected]


def test_instances_and_classes_that_read_themselves_pass():
    head = Head()
    assert Settings(["a"], head=head).head is head
    assert isinstance(build(Settings, {"files": ["a"], "head": "qeq"}).head, Head)
    assert dataclasses.replace(Settings(["a"]), layers=np.int64(4)).layers == 4


def test_what_to_plain_writes_build_reads():
    made = Settings(["a"], mesh=np.array([4, 4, 4]), energies={"H": np.float32(1)})
    assert build(Settings, parse_yaml(dump_yaml(to_plain(made)))) == made


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1.5E+3", 1500.0), (".5", 0.5), ("-5.", -5.0), ("1_000", 1000),
        ("+3", 3), ("-.inf", -math.inf), ("010", "010"), ("0x1F", "0x1F"), ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"), ("2024-13-45", "2024-13-45"), ("=", "="), ("<<", "<<"),
        ("true", True), ("~", None), ("'1'", "1"), ("", None),
    ],
)  # fmt: skip
def test_words_and_numbers_of_yaml(text, value):
    got = parse_yaml(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("? [a]\n: 1", "line 1: a key must be a word, got a list"),
        ("? {a: 1}\n: 1", "line 1: a key must be a word, got a section"),
        ("a:\n  - 1\n  - {? [b] : 2}", "line 3: a key must be a word, got a list"),
        ("1: x", "line 1: a key must be a word, and YAML reads '1' as 1"),
        ("a: {No: x}", "line 1: a key must be a word, and YAML reads 'No' as False"),
        ("~: x", "a key must be a word"),
        ("a: 1\na: 2", "the key 'a' appears twice .line 2."),
        ("a: &x 1\nb: *x", "line 1: anchors and aliases"),
        ("a: &x [*x]", "anchors and aliases"),
        ("a: *x", "anchors and aliases"),
        ("a: !!int b", "line 1: the tag .* is not read"),
        ("a: !!python/object:os.system x", "the tag .* is not read"),
        ("a: [1", "not valid YAML: line 1, column 6: "),
        ("a: b: c", "not valid YAML: line 1, column 5: "),
        ("a: 1\n---\nb: 2", "not valid YAML: "),
        ("a: \x00", "not valid YAML: "),
        ("a: '" , "not valid YAML: "),
        ("[" * 100000, "line 1: .* nest deeper than 50 levels"),
    ],
)  # fmt: skip
def test_every_odd_yaml_gets_one_clear_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"the override ['\"]a=.*: "):
        apply_override({}, f"a={text}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b", "the file holds a list"),
        (b"hello", "the file holds only 'hello'"),
        (b"3", "the file holds only 3"),
        ("a: é".encode("latin-1"), r"not UTF-8 text \(byte 3 is 0xe9\)"),
    ],
)
def test_files_that_hold_no_sections(tmp_path, content, message):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_yaml(tmp_path / "c.yaml")


def test_files_with_a_byte_order_mark_or_nothing(tmp_path):
    (tmp_path / "bom.yaml").write_bytes("a: é".encode("utf-8-sig"))
    (tmp_path / "empty.yaml").write_bytes(b"# nothing\n")
    assert read_yaml(tmp_path / "bom.yaml") == {"a": "é"}
    assert read_yaml(tmp_path / "empty.yaml") == {}
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        read_yaml(tmp_path)
