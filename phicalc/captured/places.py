"""Tensors that stay where they are: inputs in one block of memory, results in another."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float64, Shaped, UInt8
from torch import Tensor

from phicalc.derivatives import Prediction

#: Bytes that the place of each tensor is a multiple of.
_ALIGNMENT = 64
#: Results that come as one block; the last features stay where they are.
_NUMBERS = ("energy", "atomic_energies", "forces", "stress", "charges", "atomic_dipoles")


class Places:
    """Places of tensors of given shapes on a device, filled by one copy.

    Parameters
    ----------
    like
        Tensors of these shapes and types, by name.
    device
        Where the places are.
    """

    def __init__(self, like: Mapping[str, Shaped[Tensor, "..."]], device: torch.device):
        starts, end = {}, 0
        for name, tensor in like.items():
            starts[name] = end
            end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        pinned = device.type == "cuda"
        self._outside = torch.zeros(end, dtype=torch.uint8, pin_memory=pinned)
        self._inside = self._outside if not pinned else self._outside.to(device)
        self._written = _views(self._outside, starts, like)
        self.tensors = _views(self._inside, starts, like)

    def fill(self, values: Mapping[str, Shaped[Tensor, "..."]]) -> None:
        """Copy tensors of these shapes, on the CPU, to their places."""
        for name, place in self._written.items():
            place.copy_(values[name])
        if self._inside is not self._outside:
            self._inside.copy_(self._outside, non_blocking=True)


def _views(
    block: UInt8[Tensor, " n_bytes"],
    starts: Mapping[str, int],
    like: Mapping[str, Shaped[Tensor, "..."]],
) -> dict[str, Shaped[Tensor, "..."]]:
    """Parts of a block as tensors of these shapes and types."""
    return {
        name: block[start : start + like[name].nbytes].view(like[name].dtype).view(like[name].shape)
        for name, start in starts.items()
    }


class Packed(NamedTuple):
    """A prediction as one block of numbers, which is read by one copy."""

    numbers: Float64[Tensor, " n"]
    last_features: Shaped[Tensor, "..."]
    """Stay on the device."""


def packed(prediction: Prediction) -> Packed:
    """Put the numbers of a prediction side by side."""
    parts = [part for name in _NUMBERS if (part := getattr(prediction, name)) is not None]
    parts += prediction.terms.values()
    assert prediction.last_features is not None
    return Packed(torch.cat([part.reshape(-1) for part in parts]), prediction.last_features)


def unpacked(block: Packed, like: Prediction) -> Prediction:
    """Return the prediction that a block stands for, on the CPU but for its last features.

    `like` is any prediction with the same shapes.
    """
    names = [name for name in _NUMBERS if getattr(like, name) is not None]
    shapes = [getattr(like, name).shape for name in names]
    shapes += [term.shape for term in like.terms.values()]
    numbers = block.numbers.cpu()
    parts = [
        part.reshape(shape)
        for part, shape in zip(
            numbers.split([shape.numel() for shape in shapes]), shapes, strict=True
        )
    ]
    own = dict(zip(names, parts, strict=False))
    terms = dict(zip(like.terms, parts[len(names) :], strict=True))
    return like._replace(**own, terms=terms, last_features=block.last_features.clone())
