"""Neighbor lists by the k-d tree of scipy: as phicalc/neighbors/engines/scipy.py, an engine."""

import numpy as np
from scipy.spatial import cKDTree

from phicalc.neighbors.images import among_images


def search(positions, box, cutoff):
    """Return the pairs within the cutoff; positions, cell and cutoff are in Å."""

    def find(centers, ghosts):
        found = cKDTree(ghosts).query_ball_point(centers, cutoff)
        counts = [len(each) for each in found]
        return np.repeat(np.arange(len(centers)), counts), np.concatenate(found).astype(np.int64)

    return among_images(positions, box, cutoff, find)
