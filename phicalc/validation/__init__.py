"""What a model is worth: checks that anyone can run on any ASE calculator, and a certificate.

>>> from phicalc.validation import subject_of_model, validate       # doctest: +SKIP
>>> certificate = validate(subject_of_model("water"), "page")       # doctest: +SKIP
>>> print(certificate.summary)                                      # doctest: +SKIP

A check is a module in ``phicalc.validation.checks``; adding one means adding a file.
"""

from phicalc.validation.check import Check, Context, Findings
from phicalc.validation.checks import all_checks
from phicalc.validation.config import ValidationConfig
from phicalc.validation.run import perform, validate
from phicalc.validation.subject import (
    Subject,
    subject_of_calculator,
    subject_of_model,
    subject_of_spec,
)

__all__ = [
    "Check",
    "Context",
    "Findings",
    "Subject",
    "ValidationConfig",
    "all_checks",
    "perform",
    "subject_of_calculator",
    "subject_of_model",
    "subject_of_spec",
    "validate",
]
