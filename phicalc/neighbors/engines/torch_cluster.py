"""Tree search of torch-cluster (https://github.com/rusty1s/pytorch_cluster) among images."""

import torch
from jaxtyping import Float64, Int64
from numpy import ndarray

from phicalc.hints import install_hint
from phicalc.neighbors.images import among_images
from phicalc.neighbors.missing import missing
from phicalc.neighbors.record import Box, Pairs


def search(positions: Float64[ndarray, "n_atoms 3"], box: Box, cutoff: float) -> Pairs:
    """Return the pairs within the cutoff; positions, cell and cutoff are in Å.

    Raises
    ------
    ImportError
        Without torch-cluster.
    """
    try:
        from torch_cluster import radius
    except (ImportError, OSError) as error:  # OSError: compiled against another torch
        command = install_hint("cluster", options="--no-build-isolation")
        raise missing("torch_cluster", command, error) from error

    def find(
        centers: Float64[ndarray, "n_atoms 3"], ghosts: Float64[ndarray, "n_ghosts 3"]
    ) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " n"]]:
        # It silently keeps only `max_num_neighbors` per center; nobody has more than all of them.
        x, y = torch.from_numpy(ghosts), torch.from_numpy(centers)
        return tuple(radius(x=x, y=y, r=cutoff, max_num_neighbors=len(ghosts)).numpy())

    return among_images(positions, box, cutoff, find)
