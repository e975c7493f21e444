"""Ensembles on ASE's integrators, one file for each family.

Three things are added to ASE: the energy that thermostats and barostats without a conserved
quantity exchange is counted, targets may move, and every variable that decides about later steps
besides positions, momenta and cell is named, so that restarts are exact.
"""
