"""The sum over neighbours as native operations of torch, where this process has loaded them.

They are for CPUs in single precision, and for channels in multiples of sixteen: one pass over the
edges, in which nothing of the size of edges times components is ever in memory. The message is
linear in features, directions and radial functions, so that its derivatives of all orders are made
of itself and of its first derivatives.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Float64, Int64, Shaped
from torch import Tensor

from phicalc.backbone.kernel_source import WIDTH


def kernels_loaded() -> bool:
    """Whether this process has the native operations."""
    return hasattr(torch.ops.phicalc, "convolve")


def load_kernels(path: Path) -> None:
    """Load the compiled text of `phicalc.backbone.kernel_source.source`, once per process.

    Raises
    ------
    OSError
        If the file is no library for this machine.
    """
    if kernels_loaded():
        return
    torch.ops.load_library(path)
    for name, shapes, gradients, keep in (
        ("convolve", _shape, _gradients, _keep),
        ("convolve_backward", _shapes, _second_gradients, _keep),
        ("convolve_lengths", _shape, _gradients_of_lengths, _keep_with_spacing),
        ("convolve_lengths_backward", _shapes, _refuse, _keep_with_spacing),
    ):
        torch.library.register_fake(f"phicalc::{name}", shapes)
        torch.library.register_autograd(f"phicalc::{name}", gradients, setup_context=keep)


def have_kernel(values: Shaped[Tensor, "..."], channels: int) -> bool:
    """Whether so many channels of this precision and on this device can be summed natively."""
    return (
        kernels_loaded()
        and values.dtype == torch.float32
        and values.device.type == "cpu"
        and channels % WIDTH == 0
    )


def convolve(
    sent: Float32[Tensor, "n_sending m c"],
    neighbor: Int64[Tensor, "n_atoms n_slots"],
    harmonics: Float32[Tensor, "n_atoms n_slots m_out"],
    radial: Float32[Tensor, "n_atoms n_slots columns"],
) -> Float32[Tensor, "n_atoms m_out c"]:
    """Sum ``R · (Y ⊗ h)`` over all slots and paths; slots with harmonics of zero are padding."""
    result: Tensor = torch.ops.phicalc.convolve(sent, neighbor, harmonics, radial)
    return result


def convolve_lengths(
    sent: Float32[Tensor, "n_sending m c"],
    neighbor: Int64[Tensor, "n_atoms n_slots"],
    harmonics: Float32[Tensor, "n_atoms n_slots m_out"],
    lengths: Float64[Tensor, "n_atoms n_slots"],
    table: Float32[Tensor, "n_intervals 4 columns"],
    spacing: float,
) -> Float32[Tensor, "n_atoms m_out c"]:
    """Do the same with R of the lengths (Å) in a table, see `phicalc.backbone.tables`.

    The result can be differentiated once, and not by the table.
    """
    result: Tensor = torch.ops.phicalc.convolve_lengths(
        sent, neighbor, harmonics, lengths, table, spacing
    )
    return result


def _shape(sent: Tensor, neighbor: Tensor, harmonics: Tensor, *_: Any) -> Tensor:
    """Shape of the sum, for tracing."""
    return sent.new_empty(neighbor.shape[0], harmonics.shape[2], sent.shape[2])


def _shapes(
    gradient: Tensor, sent: Tensor, neighbor: Tensor, harmonics: Tensor, radial: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    """Shapes of the derivatives."""
    return tuple(x.new_empty(x.shape) for x in (sent, harmonics, radial))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    """Keep what derivatives are made of."""
    ctx.save_for_backward(*inputs)


def _keep_with_spacing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep what derivatives are made of where a table is among it."""
    *tensors, ctx.spacing = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Return derivatives of the sum."""
    sent, neighbor, harmonics, radial = ctx.saved_tensors
    d_sent, d_harmonics, d_radial = torch.ops.phicalc.convolve_backward(
        gradient, sent, neighbor, harmonics, radial
    )
    return d_sent, None, d_harmonics, d_radial


def _second_gradients(ctx: Any, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiate ``a·∂h + b·∂Y + c·∂R = g·(f(a, Y, R) + f(h, b, R) + f(h, Y, c))``."""
    gradient, sent, neighbor, harmonics, radial = ctx.saved_tensors
    changed = ((a, harmonics, radial), (sent, b, radial), (sent, harmonics, c))
    d_gradient = torch.stack([convolve(h, neighbor, y, r) for h, y, r in changed]).sum(0)
    (_, y1, r1), (h2, _, r2), (h3, y3, _) = (
        torch.ops.phicalc.convolve_backward(gradient, h, neighbor, y, r) for h, y, r in changed
    )
    return d_gradient, h2 + h3, None, y1 + y3, r1 + r2


def _gradients_of_lengths(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Return derivatives of the sum with a table."""
    d_sent, d_harmonics, d_lengths = torch.ops.phicalc.convolve_lengths_backward(
        gradient, *ctx.saved_tensors, ctx.spacing
    )
    return d_sent, None, d_harmonics, d_lengths, None, None


def _refuse(*_: Any) -> None:
    """Refuse second derivatives of the sum with a table, which is for inference."""
    raise RuntimeError("native sums with a radial table can be differentiated once only")
