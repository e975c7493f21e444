"""Energies that need no head: what atoms do to one another beside the network."""

from phicalc.terms.repulsion import ScreenedRepulsion

__all__ = ["ScreenedRepulsion"]
