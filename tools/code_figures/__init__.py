"""Figures of a Python code base: sizes, complexity, signatures, docstrings, imports."""
