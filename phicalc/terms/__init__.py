"""Energy terms that need no electrostatic head."""

from phicalc.terms.repulsion import ScreenedRepulsion

__all__ = ["ScreenedRepulsion"]
