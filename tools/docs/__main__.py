"""Renew the tables of models in README.md and models/LICENSES.md: ``python -m tools.docs``."""

from .markdown import ROOT, between
from .models import license_table, model_table

for name, made in (
    ("README.md", model_table("models/NAME/README.md")),
    ("models/LICENSES.md", license_table()),
):
    text = (ROOT / name).read_text(encoding="utf-8")
    (ROOT / name).write_text(between(text, "models", made), encoding="utf-8")
    print(f"{name}: the table of models is that of the cards")
