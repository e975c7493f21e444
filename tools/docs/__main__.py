"""Renew the table of models in README.md: ``python -m tools.docs``."""

from .markdown import ROOT, between
from .models import model_table

readme = ROOT / "README.md"
text = readme.read_text(encoding="utf-8")
readme.write_text(between(text, "models", model_table("models/NAME/README.md")), encoding="utf-8")
print("README.md: the table of models is that of the cards")
