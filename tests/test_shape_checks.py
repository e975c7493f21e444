"""Tests themselves: wrong shapes are found in the first calls of a function in each test."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from phicalc.neighbors.vectors import pair_vectors

from .conftest import SHAPE_CHECKS


def wrong() -> torch.Tensor:
    """Give one shift for two pairs, which torch would quietly use for both."""
    return pair_vectors(torch.eye(3), torch.tensor([[0, 0], [1, 2]]), torch.zeros(1, 3))


@pytest.mark.parametrize("test", [1, 2])  # the checks begin anew in each test
def test_wrong_shapes_are_found_in_the_first_calls(test):
    for _ in range(SHAPE_CHECKS):
        with pytest.raises(jaxtyping.TypeCheckError, match="pair_vectors"):
            wrong()
    assert wrong().shape == (2, 3)  # a function that is called often is checked no more
