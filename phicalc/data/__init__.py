"""Labelled structures: files, labels, checks and per-element reference energies."""
