"""Settings of what training minimizes: terms of the loss and penalties."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from phicalc.data.labels import LABELS
from phicalc.electrostatics.head import HeadKind
from phicalc.schema import AtLeast, Between, Positive, checked, settings


@settings
@dataclass(frozen=True)
class TermConfig:
    """Weight and form of one term of the loss; a weight of 0 switches it off.

    A term need not count throughout the run. Charges alone from 0 to 0.2 of the run, then energies
    and forces, make a training in two stages.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range, and unless ``start < end``.
    """

    weight: Annotated[float, AtLeast(0)] = 0.0
    kind: Literal["norm", "mse", "huber"] = "norm"
    """``norm``: mean length of the error vector; ``mse``: mean square; ``huber``: both."""
    delta: Annotated[float, Positive] = 0.1
    """Error at which ``huber`` turns from square to linear, in the scaled unit of the term."""
    start: Annotated[float, Between(0, 1)] = 0.0
    """Fraction of the run at which the term starts to count."""
    end: Annotated[float, Between(0, 1)] = 1.0
    """Fraction of the run at which it stops counting."""
    final_weight: Annotated[float, AtLeast(0)] | None = None
    """Weight at the end of the run (see `LossConfig.final_from`); by default `weight`."""
    required: bool = True
    """False admits frames without this label; the term then averages over those that have it."""

    def __post_init__(self) -> None:
        """Check every field, then the order of the two fractions."""
        checked(self)
        if not self.start < self.end:
            raise ValueError(
                f"'start' and 'end' must be fractions of the run with start < end, got "
                f"{self.start} and {self.end}"
            )

    @property
    def used(self) -> bool:
        """Whether the term counts at any time of the run."""
        return self.weight > 0 or (self.final_weight or 0) > 0

    @property
    def changes(self) -> bool:
        """Whether the weight changes during the run."""
        return self.final_weight is not None or self.start > 0 or self.end < 1

    def at(self, progress: float, final: float) -> "TermConfig":
        """Return the term with the constant weight that it has at a moment of the run.

        Parameters
        ----------
        progress
            Fraction of the run that is done.
        final
            Fraction of the change to the final weight that is done.
        """
        weight = self.weight
        if self.final_weight is not None:
            weight = (1 - final) * self.weight + final * self.final_weight
        counts = self.start <= progress < self.end or progress >= self.end == 1.0
        weight = weight if counts else 0.0
        return dataclasses.replace(self, weight=weight, start=0.0, end=1.0, final_weight=None)


@settings
@dataclass(frozen=True)
class LossConfig:
    """The loss: a sum of weighted terms (see `phicalc.training.loss` for their units).

    Terms with a ``final_weight`` change to it late in the run: first forces, whose errors constrain
    the network more, then energies. Validation always uses the final weights, so that one measure
    selects the best epoch.

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range, for a loss without terms at any
        time of the run, and for a change of weights that does not fit into the run.
    """

    energy: TermConfig = TermConfig(weight=1.0)
    forces: TermConfig = TermConfig(weight=1.0)
    stress: TermConfig = TermConfig()
    charges: TermConfig = TermConfig()
    dipole: TermConfig = TermConfig()
    polarizability: TermConfig = TermConfig()
    born_charges: TermConfig = TermConfig()
    final_from: Annotated[float, Between(0, 1, "[)")] = 0.75
    """Fraction of the run's steps after which terms change to their ``final_weight``."""
    final_over: Annotated[float, Between(0, 1)] = 0.0
    """Fraction of the run that the change takes, linearly; 0 changes at once."""

    def __post_init__(self) -> None:
        """Check every field, then that some term counts at every moment of the run."""
        checked(self)
        terms = [getattr(self, name) for name in LABELS]
        if not any(term.used for term in terms):
            raise ValueError("every weight is 0; give at least one label a positive weight")
        if self.final_over > 1 - self.final_from:
            raise ValueError(
                "'final_from' and 'final_over' are fractions of the run, and their sum at most 1; "
                f"got {self.final_from} and {self.final_over}"
            )
        if self.changes:
            self._check_moments(terms)

    def _check_moments(self, terms: list[TermConfig]) -> None:
        """Refuse a moment of the run at which no term counts."""
        moments = {time for term in terms for time in (term.start, term.end)}
        # a little later than its end, so that the change is whole whatever rounding does
        moments |= {self.final_from, min(1.0, self.final_from + self.final_over + 1e-9)}
        for moment in sorted(moments, reverse=True):
            if not any(term.weight for term in self._terms_at(moment).values()):
                when = "at the end" if moment == 1 else f"after the fraction {moment:g}"
                raise ValueError(
                    f"no term of the loss counts {when} of the run; change 'start', 'end' or "
                    "'final_weight' of a term"
                )

    @property
    def changes(self) -> bool:
        """Whether any weight changes during the run."""
        return any(getattr(self, name).changes for name in LABELS)

    def at(self, progress: float) -> "LossConfig":
        """Return the loss at a moment of the run (`progress` 0 to 1), with constant weights."""
        if not self.changes:
            return self
        return dataclasses.replace(self, **self._terms_at(progress))

    def _terms_at(self, progress: float) -> dict[str, Any]:
        """Terms at a moment of the run."""
        final = float(progress >= self.final_from)
        if self.final_over > 0:
            final = min(1.0, max(0.0, (progress - self.final_from) / self.final_over))
        return {name: getattr(self, name).at(progress, final) for name in LABELS}


@settings
@dataclass(frozen=True)
class PenaltyConfig:
    """Weights of parts of the loss that need no labels (see `phicalc.training.penalties`).

    Raises
    ------
    ValueError
        For a setting of the wrong type or out of range.
    """

    residual: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the mean square residual of Poisson's equation (heads with one; the solvers make it
    zero by construction)."""
    net_charge: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the mean ``|Σρ − Q|``, zero by construction for heads that conserve charge."""
    charges: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the mean square charge."""
    missing_charge: Annotated[float, AtLeast(0)] = 0.0
    """Weight of the mean charge that molecules lack of their own before it is shared out (head
    ``latent``): where it is small, distant molecules keep their charges. A sum over the structure:
    in cells of hundreds of atoms, 0.1 is too much."""
    integer_fragments: Annotated[float, AtLeast(0)] = 0.0
    """Weight of how far formal charges are from whole ones of each molecule (heads with formal
    charges; `phicalc.training.integer_charges.charge_defects`). They are fitted to these before
    training begins; with a weight they also go on changing with the energies."""

    def __post_init__(self) -> None:
        """Check every field."""
        checked(self)

    def check_head(self, head: HeadKind) -> None:
        """Refuse penalties that a head (`PotentialConfig.head`) makes meaningless.

        Raises
        ------
        ValueError
            For penalties on charges without charges, on Poisson's equation without it, on formal
            charges without these, or on what is shared out by heads that share nothing.
        """
        if not head.implementation.has_charges and (self.net_charge or self.charges):
            raise ValueError(
                "penalties.net_charge and penalties.charges need charges, but model.head "
                f"{head.name!r} has none"
            )
        if self.residual and not head.implementation.solves_poisson:
            raise ValueError(
                f"penalties.residual needs a head with Poisson's equation on the graph, got "
                f"model.head={head.name!r}"
            )
        if self.missing_charge and not head.implementation.reads_charges:
            raise ValueError(
                "penalties.missing_charge needs charges that are read from the features "
                f"('latent'), got model.head={head.name!r}"
            )
        if self.integer_fragments and not head.implementation.has_formal_charges:
            raise ValueError(
                "penalties.integer_fragments needs a head with formal charges ('acks2', or one "
                f"with '+links'), got model.head={head.name!r}"
            )


assert tuple(f.name for f in dataclasses.fields(LossConfig) if f.type is TermConfig) == LABELS
