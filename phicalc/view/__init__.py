"""Views in 3D: frames of atoms and their charges in one HTML file that needs no network."""

from phicalc.view.page import View, view_part, write_view

__all__ = ["View", "view_part", "write_view"]
