"""Energy terms that need no electrostatic head."""

from phicalc.terms.dispersion import LearnedDispersion
from phicalc.terms.repulsion import ScreenedRepulsion

__all__ = ["LearnedDispersion", "ScreenedRepulsion"]
