"""What a certificate says: checks with their figures, limits and curves; its file."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, SupportsFloat

import numpy as np
from jaxtyping import Float

from phicalc._version import __version__
from phicalc.schema import AtLeast, NotEmpty, build, checked, settings, to_plain
from phicalc.state import write_atomically

#: Name of the file beside a model.
CERTIFICATE_FILE = "certificate.json"
#: Version of the layout of the file.
FORMAT_VERSION = 1
#: Digits of the points of curves.
DIGITS = 5

Status = Literal["passed", "failed", "not applicable", "not run"]


@settings
@dataclass(frozen=True)
class Figure:
    """A number that a check has measured, and its limits."""

    name: Annotated[str, NotEmpty]
    value: float | None
    """None where there is no finite number, which never passes a limit."""
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    @classmethod
    def of(
        cls,
        name: str,
        value: SupportsFloat,
        unit: str = "",
        *,
        at_least: SupportsFloat | None = None,
        at_most: SupportsFloat | None = None,
    ) -> "Figure":
        """Return the figure for a number that may be infinite or NaN."""
        low, high = (None if limit is None else float(limit) for limit in (at_least, at_most))
        number = float(value)
        return cls(name, number if math.isfinite(number) else None, unit, low, high)

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.at_least is not None or self.at_most is not None

    @property
    def passed(self) -> bool:
        """Whether the number is within its limits; true without any."""
        if not self.limited:
            return True
        if self.value is None:
            return False
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return low <= self.value <= high

    @property
    def limit(self) -> str:
        """The limits as text, with unit."""
        low, high = self.at_least, self.at_most
        if low is not None and high is not None:
            text = f"{low:g} … {high:g}"
        elif low is not None:
            text = f"≥ {low:g}"
        else:
            text = "" if high is None else f"≤ {high:g}"
        return f"{text} {self.unit}".strip() if text else ""

    @property
    def text(self) -> str:
        """The number with its unit."""
        value = "not finite" if self.value is None else f"{self.value:.4g}"
        return f"{value} {self.unit}".strip()


@settings
@dataclass(frozen=True)
class Curve:
    """A line of a plot.

    Raises
    ------
    ValueError
        If `x` and `y` differ in length, or for a field of the wrong type.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    reference: bool = False
    """Whether this is what the model should give."""

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)
        if len(self.x) != len(self.y):
            raise ValueError(f"curve {self.label!r} has {len(self.x)} x and {len(self.y)} y")

    @classmethod
    def of(
        cls,
        label: str,
        x: Sequence[SupportsFloat] | Float[np.ndarray, " n"],
        y: Sequence[SupportsFloat] | Float[np.ndarray, " n"],
        *,
        reference: bool = False,
    ) -> "Curve":
        """Return the curve through all points that are finite, rounded to `DIGITS` digits."""
        pairs = zip(map(float, x), map(float, y), strict=True)
        points = [pair for pair in pairs if all(map(math.isfinite, pair))]
        rounded = [tuple(float(f"{value:.{DIGITS}g}") for value in point) for point in points]
        return cls(label, tuple(p[0] for p in rounded), tuple(p[1] for p in rounded), reference)


@settings
@dataclass(frozen=True)
class Plot:
    """Curves that share their axes."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    y_range: tuple[float, float] | None = None
    """Part of the y axis to show; None shows all."""

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)


@settings
@dataclass(frozen=True)
class Outcome:
    """How one check ended."""

    check: Annotated[str, NotEmpty]
    """Its name, as ``--only`` takes it."""
    title: str
    status: Status
    reason: str = ""
    """Why it does not apply, was not run, or broke down; empty for what was measured."""
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    seconds: Annotated[float, AtLeast(0)] = 0.0

    def __post_init__(self) -> None:
        """Check every field, and that the status follows from the figures.

        Raises
        ------
        ValueError
            For a status that contradicts the figures.
        """
        checked(self)
        within = all(figure.passed for figure in self.figures)
        if self.status == "passed" and not (within and self.figures):
            raise ValueError(f"check {self.check!r} passed, but its figures say otherwise")
        if self.status == "failed" and within and not self.reason:
            raise ValueError(f"check {self.check!r} failed without a reason")

    @classmethod
    def of(
        cls,
        check: str,
        title: str,
        figures: Iterable[Figure],
        *,
        notes: Iterable[str] = (),
        plots: Iterable[Plot] = (),
        seconds: float = 0.0,
    ) -> "Outcome":
        """Return the outcome that figures give: failed if one is beyond its limits."""
        found = tuple(figures)
        status: Status = "passed" if all(each.passed for each in found) else "failed"
        return cls(check, title, status, "", found, tuple(notes), tuple(plots), round(seconds, 3))


@settings
@dataclass(frozen=True)
class Certificate:
    """What the checks have found about one model or calculator."""

    subject: Annotated[str, NotEmpty]
    """Name of the model or calculator."""
    digest: Annotated[str, NotEmpty]
    """SHA-256 over what the results depend on: model, settings, structures, version."""
    model_sha256: str
    """Digest of the model's card; empty for other calculators."""
    elements: tuple[str, ...]
    settings: dict[str, Any]
    """Of the run, as `phicalc.validation.ValidationConfig` takes them."""
    outcomes: tuple[Outcome, ...]
    left_out: tuple[str, ...] = ()
    """Checks that were not asked for."""
    phicalc_version: str = __version__
    format_version: Annotated[int, AtLeast(1)] = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def count(self, status: Status) -> int:
        """Return the number of checks that ended so."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def passed(self) -> bool:
        """Whether every check that applies was run and passed, and there was one."""
        return self.count("passed") > 0 and not self.count("failed") + self.count("not run")

    @property
    def seconds(self) -> float:
        """Time of all checks together in seconds."""
        return sum(outcome.seconds for outcome in self.outcomes)

    @property
    def summary(self) -> str:
        """One line: ``14 of 19 passed (walls, torsions failed; 2 not run)``."""
        failed = [each.check for each in self.outcomes if each.status == "failed"]
        remarks = [f"{', '.join(failed)} failed"] if failed else []
        if missing := self.count("not run"):
            remarks.append(f"{missing} not run")
        if self.left_out:
            remarks.append(f"{len(self.left_out)} left out")
        total = len(self.outcomes) - self.count("not applicable")
        return f"{self.count('passed')} of {total} passed" + (
            f" ({'; '.join(remarks)})" if remarks else ""
        )


def read_certificate(path: str | Path) -> Certificate:
    """Return the certificate in a file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no certificate, or was written by a later version.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        version = values.get("format_version") if isinstance(values, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise ValueError(f"format {version} is of a later phicalc: install that, or run again")
        return build(Certificate, values)
    except ValueError as error:
        raise ValueError(f"{path} is no certificate: {error}") from error


def find_certificate(folder: Path, sha256: str) -> str:
    """Return one line about the certificate beside a model; empty if there is none.

    Parameters
    ----------
    folder
        That of the model.
    sha256
        Digest of the model's card: a certificate of other weights is said to be one.
    """
    path = folder / CERTIFICATE_FILE
    if not path.is_file():
        return ""
    try:
        found = read_certificate(path)
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    if found.model_sha256 != sha256:
        return "of other weights: run phicalc validate again"
    return found.summary


def write_certificate(path: str | Path, certificate: Certificate) -> Path:
    """Write a certificate as JSON, atomically; return the path.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = to_plain(certificate)
    lines = [_json(outcome) for outcome in values.pop("outcomes")]
    head = ",\n".join(f" {_json(key)}: {_json(value)}" for key, value in values.items())
    text = f'{{\n{head},\n "outcomes": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    write_atomically(path, text.encode())
    return path


def _json(value: Any) -> str:
    """Return one line of JSON without numbers that other readers refuse."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
