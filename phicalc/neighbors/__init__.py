"""Neighbor lists: one function, several engines, always the same pairs.

An engine is a function that finds the candidates a little beyond the cutoff (a file in
`phicalc.neighbors.engines`). Everything that makes the answers equal is done once, around it:
checking the input, replacing the vectors of open axes, the strict comparison with the cutoff, and
sorting.
"""

from phicalc.neighbors.engines import ENGINES
from phicalc.neighbors.record import NeighborList
from phicalc.neighbors.search import available_engines, neighbor_list
from phicalc.neighbors.vectors import pair_vectors, pair_vectors_of_arrays, points_forward

__all__ = [
    "ENGINES",
    "NeighborList",
    "available_engines",
    "neighbor_list",
    "pair_vectors",
    "pair_vectors_of_arrays",
    "points_forward",
]
