"""Native sums over neighbours: the same as plain ones, to all derivatives, and optional."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from phicalc.backbone import native
from phicalc.backbone.fused import FusedConvolution, can_be_fused
from phicalc.backbone.interaction import Convolution, EdgeFeatures
from phicalc.backbone.tables import RadialTable
from phicalc.card import ModelCard
from phicalc.checkpoint import save_model
from phicalc.compiled import kernels
from phicalc.nn import RadialBasis
from phicalc.potential import build_potential

from .tiny import flat_config

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++)"),
    pytest.mark.xdist_group("compiled"),
]

DEGREES = [(0, 0), (0, 2), (1, 1), (1, 2), (2, 2), (3, 3)]
N_ATOMS, N_SLOTS, PADDING = 21, 11, 3


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert kernels.prepare_kernels(tmp_path_factory.mktemp("kernels"), compiling=True)


def surroundings(l_max: int) -> EdgeFeatures:
    """Random edges with padding; harmonics of a real edge begin with 0."""
    make = torch.Generator().manual_seed(3)
    harmonics = torch.randn(N_ATOMS, N_SLOTS, (l_max + 1) ** 2, generator=make)
    if l_max:
        harmonics[0, 0, 0] = 0
    harmonics[:, -PADDING:] = 0
    lengths = 0.8 + 3.2 * torch.rand(N_ATOMS, N_SLOTS, generator=make, dtype=torch.float64)
    neighbor = torch.randint(N_ATOMS, (N_ATOMS, N_SLOTS), generator=make)
    radial = RadialBasis(8, 4.0)(lengths.float().reshape(-1)).reshape(N_ATOMS, N_SLOTS, 8)
    return EdgeFeatures(neighbor, harmonics, lengths, radial.detach())


def convolution(l_in: int, l_max: int, channels: int = 32) -> Convolution:
    torch.manual_seed(5)
    return Convolution(l_in, l_max, 24, channels, 8, 9.0)


def relative(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).abs().max() / expected.abs().max()).detach())


def without_padding(values: Tensor) -> Tensor:
    """Leave out what belongs to empty slots, of which derivatives mean nothing."""
    return values[:, :-PADDING] if values.shape[:2] == (N_ATOMS, N_SLOTS) else values


def results(
    layer: Convolution, features: Tensor, edges: EdgeFeatures, dtype: torch.dtype
) -> list[Tensor]:
    """Return the sum, its first derivatives, and those of a function of them and the weights."""
    layer = layer.to(dtype)
    edges = edges._replace(
        harmonics=edges.harmonics.to(dtype).requires_grad_(),
        radial=edges.radial.to(dtype).requires_grad_(),
    )
    inputs = [features.to(dtype).requires_grad_(), edges.harmonics, edges.radial]
    found = layer(inputs[0], edges)
    first = torch.autograd.grad(found.square().sum(), inputs, create_graph=True)
    function = sum(without_padding(x).pow(3).mean() for x in first)
    second = torch.autograd.grad(function, [*inputs, *layer.parameters()])
    return [without_padding(x).detach() for x in (found, *first, *second)]


@pytest.mark.parametrize(("l_in", "l_max"), DEGREES)
@pytest.mark.parametrize("threads", [1, 2])
def test_native_sums_and_their_derivatives_are_the_plain_ones(l_in, l_max, threads, monkeypatch):
    edges, layer = surroundings(l_max), convolution(l_in, l_max)
    features = torch.randn(N_ATOMS, (l_in + 1) ** 2, 24)
    expected = results(layer, features, edges, torch.float64)
    layer.native, calls = True, []
    own = native.convolve
    monkeypatch.setattr(
        "phicalc.backbone.interaction.convolve", lambda *x: calls.append(1) or own(*x)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = results(layer, features, edges, torch.float32)
    finally:
        torch.set_num_threads(before)
    assert calls
    for a, b in zip(found, expected, strict=True):
        assert relative(a.double(), b) < 2e-5


@pytest.mark.parametrize(("l_in", "l_max"), DEGREES)
def test_tables_are_looked_up_natively(l_in, l_max):
    edges, layer = surroundings(l_max), convolution(l_in, l_max)
    layer.table = RadialTable(RadialBasis(8, 4.0), layer.radial)
    assert can_be_fused(layer)
    features = torch.randn(N_ATOMS, (l_in + 1) ** 2, 24).requires_grad_()
    edges = edges._replace(
        harmonics=edges.harmonics.requires_grad_(), lengths=edges.lengths.requires_grad_()
    )
    inputs = [features, edges.harmonics, edges.lengths]
    cotangent = torch.randn(N_ATOMS, (l_max + 1) ** 2, 32)
    for a, b in zip(
        *(
            [made := one(features, edges), *torch.autograd.grad(made, inputs, cotangent)]
            for one in (FusedConvolution(layer), layer)
        ),
        strict=True,
    ):
        assert relative(without_padding(a), without_padding(b)) < 1e-5


def test_sums_with_a_table_have_no_second_derivatives():
    edges, layer = surroundings(1), convolution(1, 1)
    layer.table = RadialTable(RadialBasis(8, 4.0), layer.radial)
    features = torch.randn(N_ATOMS, 4, 24).requires_grad_()
    total = FusedConvolution(layer)(features, edges).square().sum()
    (first,) = torch.autograd.grad(total, features, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once only"):
        torch.autograd.grad(first.square().sum(), features)


@pytest.mark.parametrize("change", ["dtype", "channels"])
def test_what_has_no_kernel_is_summed_plainly(change, monkeypatch):
    monkeypatch.setattr("phicalc.backbone.interaction.convolve", None)
    layer = convolution(1, 2, channels=24 if change == "channels" else 32)
    layer.native = True
    dtype = torch.float64 if change == "dtype" else torch.float32
    edges = surroundings(2)
    edges = edges._replace(harmonics=edges.harmonics.to(dtype), radial=edges.radial.to(dtype))
    assert layer.to(dtype)(torch.randn(N_ATOMS, 4, 24, dtype=dtype), edges).isfinite().all()


@pytest.mark.parametrize("size", ["components", "channels", "type"])
def test_wrong_inputs_are_refused(size):
    edges = surroundings(2)
    sent = torch.randn(N_ATOMS, 5 if size == "components" else 4, 8 if size == "channels" else 32)
    radial = torch.randn(N_ATOMS, N_SLOTS, 7 * sent.shape[-1])
    sent = sent.double() if size == "type" else sent
    with pytest.raises(RuntimeError, match="no kernel for|multiple of 16|expected numbers of type"):
        torch.ops.phicalc.convolve(sent, edges.neighbor, edges.harmonics, radial)


def test_without_a_compiler_there_are_no_kernels(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(kernels, "kernels_loaded", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    for _ in range(2):
        assert not kernels.prepare_kernels(tmp_path, compiling=True)
    (line,) = [line for line in caplog.messages if "native operations" in line and "go" in line]
    assert "no-such-compiler" in line
    assert not [*tmp_path.glob("*.so")]


def test_kernels_are_built_only_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "kernels_loaded", lambda: False)
    monkeypatch.setattr(subprocess, "run", None)
    assert not kernels.prepare_kernels(tmp_path, compiling=False)
    assert not [*tmp_path.iterdir()]


PREDICT = """
import sys, torch
from ase.build import bulk
from phicalc import PhiCalculator
from phicalc.backbone import native
from phicalc.compiled.network import CompiledNetwork

salt = bulk("NaCl", "rocksalt", 5.6, cubic=True) * (1, 1, 2)
salt.rattle(0.1, seed=1)
salt.pbc = [True, True, False]
calculator = PhiCalculator(sys.argv[1], compile={"True": True, "auto": "auto"}[sys.argv[2]])
salt.calc = calculator
print(salt.get_potential_energy().hex(), *(x.hex() for x in salt.get_forces().ravel()))
(network,) = (
    x for x in calculator._workspace.predictor._hybrid.modules() if isinstance(x, CompiledNetwork)
)
assert native.kernels_loaded() and all(network.halves.values())
assert type(network.special.interactions[0].convolution).__name__ == "FusedConvolution"
"""


def test_compiled_networks_use_kernels_and_other_processes_load_both(tmp_path, monkeypatch):
    config = flat_config(
        elements=("Na", "Cl"), cutoff=4.0, layers=1, channels=16, l_max=1, correlation=1,
        average_neighbors=6.0, radial_basis=3,
    )  # fmt: skip
    potential = build_potential(config, seed=3).eval()
    save_model(tmp_path / "model", potential, ModelCard(name="test"))
    monkeypatch.setenv("PHICALC_CACHE", str(tmp_path / "cache"))
    found = [
        subprocess.run(
            [sys.executable, "-c", PREDICT, str(tmp_path / "model"), mode],
            capture_output=True, text=True, check=False,
        )
        for mode in ("True", "auto")
    ]  # fmt: skip
    assert [one.returncode for one in found] == [0, 0], found[-1].stderr
    assert found[0].stdout == found[1].stdout
    assert "compiling" in found[0].stderr
    assert "compiling" not in found[1].stderr
