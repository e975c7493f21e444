"""What failed checks ask for."""

from __future__ import annotations

from phicalc.certificate import Certificate, Figure, Outcome
from phicalc.improvement.steering import ANSWERS, wishes_of
from phicalc.labelling.samplers import SAMPLERS
from phicalc.validation import all_checks


def certificate(*outcomes: Outcome) -> Certificate:
    return Certificate("model", "0", "", ("H", "C"), {}, outcomes)


def outcome(check: str, name: str, value: float) -> Outcome:
    figures = [Figure.of(name, value, at_most=1.0), Figure.of("CH4, fine", 0.0, at_most=1.0)]
    return Outcome.of(check, "", figures)


def test_answers_name_checks_and_samplers() -> None:
    assert set(ANSWERS) <= set(all_checks())
    assert {name for names in ANSWERS.values() for name in names} <= set(SAMPLERS)


def test_failed_molecules_are_explored() -> None:
    failed = outcome("torsions", "C2H6 about C–C", 2.0)
    (wish,) = wishes_of(certificate(failed, outcome("bonds", "C2H4 pulled", 0.5)), ["H", "C"])
    assert (wish.check, wish.samplers) == ("torsions", ("torsions",))
    assert [atoms.get_chemical_formula() for atoms in wish.structures] == ["C2H6"]


def test_molecules_of_other_elements_and_open_shells_are_not() -> None:
    names = "CH3OH, CH3 and CH beside trans-butane"
    (wish,) = wishes_of(certificate(outcome("frequencies", names, 2.0)), ["H", "C"])
    assert [atoms.get_chemical_formula() for atoms in wish.structures] == ["C4H10"]


def test_walls_are_explored_with_two_atoms() -> None:
    figures = [Figure.of(f"lowest wall ({pair})", 2.0, at_most=1.0) for pair in ("C–C", "H–C")]
    (wish,) = wishes_of(certificate(Outcome.of("walls", "", figures)), ["H", "C"])
    assert [atoms.get_chemical_formula() for atoms in wish.structures] == ["C2"]  # CH is a radical


def test_what_no_data_mend_asks_for_nothing() -> None:
    assert wishes_of(certificate(outcome("symmetry", "rotation", 2.0)), ["H"]) == []
    assert wishes_of(None, ["H"]) == []
