"""The certificate of a model: what `phicalc.validation` has found, as a file and as a page."""

from typing import TYPE_CHECKING

from phicalc._exports import lazy_exports
from phicalc.certificate.record import (
    CERTIFICATE_FILE,
    Certificate,
    Curve,
    Figure,
    Outcome,
    Plot,
    find_certificate,
    read_certificate,
    write_certificate,
)

if TYPE_CHECKING:
    from phicalc.certificate.page import certificate_body, certificate_page

__all__ = [
    "CERTIFICATE_FILE",
    "Certificate",
    "Curve",
    "Figure",
    "Outcome",
    "Plot",
    "certificate_body",
    "certificate_page",
    "find_certificate",
    "read_certificate",
    "write_certificate",
]

# Pictures import matplotlib, which a list of models does not need.
__getattr__, __dir__ = lazy_exports(
    __name__,
    globals(),
    {
        "certificate_body": "phicalc.certificate.page",
        "certificate_page": "phicalc.certificate.page",
    },
)
