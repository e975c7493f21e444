"""Python functions of tensors → traced operations → native functions on disk."""

import copy
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import jaxtyping
import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.export import Dim, export
from torch.fx import GraphModule
from torch.fx.experimental import _config as fx_config
from torch.fx.experimental.proxy_tensor import make_fx

from phicalc.backbone import Specializable, backbones_of
from phicalc.potential import Potential

Function = Callable[..., Sequence[Shaped[Tensor, "..."]]]
#: Largest difference between compiled and plain results, relative to the largest number. In single
#: precision each of the two may err by 1e-5; wrong code errs by a thousandth or more.
AGREEMENT = {torch.float32: 3e-5, torch.float64: 1e-10}


def trace(
    function: Function, inputs: Sequence[Shaped[Tensor, "..."]], *, in_place: bool = True
) -> GraphModule:
    """Record every operation, those of derivatives included, with symbols for all sizes.

    Two sizes that are equal by chance are not taken for one. Without `in_place`, operations that
    change a tensor are replaced.
    """
    if not in_place:
        function = torch.func.functionalize(trace(function, inputs), remove="mutations")
    with _no_shape_checks(), fx_config.patch(use_duck_shape=False):  # type: ignore[attr-defined]  # added by torch
        tracer = make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)
        traced: GraphModule = tracer(*inputs)
        return traced


def fused(function: Function, inputs: Sequence[Shaped[Tensor, "..."]]) -> Function:
    """Compile for these sizes and this process alone, with every operation recorded once."""
    with _no_shape_checks():
        traced = make_fx(function)(*inputs)
    compiled = torch.compile(traced, dynamic=False, fullgraph=True)
    with _quiet():
        compiled(*inputs)
    return compiled


def compile_functions(
    functions: Mapping[
        Path, tuple[GraphModule, Sequence[Shaped[Tensor, "..."]], Sequence[Sequence[int]]]
    ],
) -> None:
    """Compile traced functions to files, which appear when all of them are complete.

    With each function come examples of its inputs, and the axes of each that may have any size.
    """
    folder = next(iter(functions)).parent
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet(), tempfile.TemporaryDirectory(dir=folder) as unfinished:
        for path, (traced, inputs, axes) in functions.items():
            shapes = tuple(dict.fromkeys(each, Dim.AUTO) for each in axes)
            with _no_shape_checks():
                program = export(traced, tuple(inputs), dynamic_shapes=shapes, strict=False)
            torch._inductor.aoti_compile_and_package(
                program, package_path=os.path.join(unfinished, path.name)
            )
        for path in functions:
            os.replace(os.path.join(unfinished, path.name), path)


def load_function(path: Path) -> Callable[..., list[Shaped[Tensor, "..."]]]:
    """Load a compiled function."""
    package = torch._inductor.aoti_load_package(str(path))
    return lambda *inputs: list(package(*inputs))


def specialized(potential: Potential) -> Potential:
    """Copy whose networks are in the form that compilers like best."""
    potential = copy.deepcopy(potential)
    for backbone in backbones_of(potential).values():
        if isinstance(backbone, Specializable):
            backbone.specialize()
    return potential


@contextmanager
def _no_shape_checks() -> Iterator[None]:
    """Leave out the checks of annotations, which would fix sizes."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's compilers say about themselves."""
    inductor = logging.getLogger("torch._inductor")
    level = inductor.level
    inductor.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        inductor.setLevel(level)
