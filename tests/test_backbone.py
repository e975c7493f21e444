"""The backbone: equivariance inside, invariance outside, locality, body order."""

from __future__ import annotations

import pytest
import torch
from ase.build import molecule

from phicalc import nn
from phicalc.backbone import NequIP
from phicalc.backbone.products import ElementCoupling, NodeProduct, UnrolledCoupling
from phicalc.graph import AtomicGraph, from_ase

SHAPES = [(0, 0, 1), (1, 1, 1), (2, 2, 1), (1, 0, 2), (2, 1, 2), (2, 0, 3), (2, 2, 3)]


def backbone(l_max: int, hidden_l_max: int, correlation: int, **options: bool) -> NequIP:
    torch.manual_seed(1)
    return NequIP(
        n_elements=2, layers=3, channels=4, edge_channels=3, l_max=l_max, hidden_l_max=hidden_l_max,
        correlation=correlation, radial_basis=6, cutoff=3.0, average_neighbors=8.0, **options,
    ).double()  # fmt: skip


def features(model: NequIP, graph: AtomicGraph) -> torch.Tensor:
    element = (graph.atomic_numbers == 6).long()
    embedding = torch.eye(2, 4, dtype=torch.float64)[element]
    return model(embedding, element, graph).detach()


def random_turn() -> torch.Tensor:
    return torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q


def representation(turn: torch.Tensor, l_max: int) -> torch.Tensor:
    points = torch.nn.functional.normalize(torch.randn(200, 3, dtype=torch.float64), dim=1)
    harmonics = nn.spherical_harmonics(points, l_max)
    return torch.linalg.lstsq(harmonics, nn.spherical_harmonics(points @ turn, l_max)).solution


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_node_features_are_invariant(shape: tuple[int, int, int]) -> None:
    model, graph = backbone(*shape), from_ase(molecule("C2H6"), 3.0)
    turned = graph._replace(positions=graph.positions @ random_turn())
    torch.testing.assert_close(features(model, turned), features(model, graph))


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] > 0], ids=str)
def test_vectors_turn_with_the_structure(shape: tuple[int, int, int], gated: bool) -> None:
    model, graph = backbone(*shape, gated=gated, vectors=True), from_ase(molecule("C2H6"), 3.0)
    matrix = random_turn()  # a reflection or not
    before = features(model, graph)
    after = features(model, graph._replace(positions=graph.positions @ matrix))
    assert before.shape[1] == model.n_columns == model.n_features + 3
    torch.testing.assert_close(after[:, :-3], before[:, :-3])
    torch.testing.assert_close(after[:, -3:], before[:, -3:] @ matrix)
    assert before[:, -3:].abs().max() > 1e-3


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[1] > 0], ids=str)
def test_features_between_layers_are_equivariant(shape: tuple[int, int, int]) -> None:
    model, graph, turn = backbone(*shape), from_ase(molecule("C2H6"), 3.0), random_turn()
    seen: list[torch.Tensor] = []
    model.interactions[1].register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    features(model, graph)
    features(model, graph._replace(positions=graph.positions @ turn))
    before, after = seen
    assert before[:, 1:].abs().max() > 1e-3
    turned = torch.einsum("nmc,mk->nkc", before, representation(turn, shape[1]))
    torch.testing.assert_close(after, turned)


def test_an_atom_beyond_the_receptive_field_is_not_seen() -> None:
    model, atoms = backbone(2, 1, 2), molecule("C2H6")
    alone = features(model, from_ase(atoms, 3.0))
    crowd = atoms + atoms
    crowd.positions[len(atoms) :] += [30.0, 0, 0]
    torch.testing.assert_close(features(model, from_ase(crowd, 3.0))[: len(atoms)], alone)


def test_angles_need_degree_one_and_dihedral_signs_are_not_seen() -> None:
    # Three atoms with the same two distances at different angles: l = 0 and one layer cannot tell.
    def centre(angle: float, l_max: int) -> torch.Tensor:
        model = backbone(l_max, 0, 2)
        model.interactions = model.interactions[:1]
        atoms = molecule("CH2_s1A1d")
        bend = torch.tensor(angle)
        atoms.positions = [[0, 0, 0], [1, 0, 0], [float(bend.cos()), float(bend.sin()), 0]]
        return features(model, from_ase(atoms, 1.2))[0]

    torch.testing.assert_close(centre(1.3, 0), centre(2.6, 0))
    assert (centre(1.3, 1) - centre(2.6, 1)).abs().max() > 1e-3


@pytest.mark.parametrize("correlation", [1, 2, 3])
@pytest.mark.parametrize("l_out", [0, 1, 2])
def test_node_product_is_equivariant_and_of_the_order_it_says(correlation: int, l_out: int) -> None:
    torch.manual_seed(2)
    product = NodeProduct(2, l_out, correlation, channels=3, n_elements=2).double()
    element, values = torch.tensor([0, 1, 1]), torch.randn(3, 9, 3, dtype=torch.float64)
    turn = representation(random_turn(), 2)
    n_out = (l_out + 1) ** 2
    result = product(values, element)
    turned = product(torch.einsum("nmc,mk->nkc", values, turn), element)
    expected = torch.einsum("nmc,mk->nkc", result, turn[:n_out, :n_out])
    torch.testing.assert_close(turned, expected)
    # A polynomial of degree ν without constant term: its (ν+1)-th differences vanish.
    scales = torch.arange(correlation + 2, dtype=torch.float64)
    samples = torch.stack([product(scale * values, element) for scale in scales]).detach()
    assert torch.diff(samples, n=correlation, dim=0).abs().max() > 1e-2
    assert torch.diff(samples, n=correlation + 1, dim=0).abs().max() < 1e-9


def test_symmetric_coupling_equals_the_general_one() -> None:
    torch.manual_seed(3)
    general = ElementCoupling(2, 2, 3, n_elements=1, symmetric=False).double()
    symmetric = ElementCoupling(2, 2, 3, n_elements=1, symmetric=True).double()
    paths = nn.couplings(2, 2, 2)
    kept = [p for p in paths if p[0] <= p[1]]
    values, element = torch.randn(4, 9, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    with torch.no_grad():
        general.weight.zero_()
        for i, path in enumerate(kept):
            # Fan-in differs: the general form has more paths to each degree.
            more = sum(p[2] == path[2] for p in paths) / sum(p[2] == path[2] for p in kept)
            general.weight[:, paths.index(path)] = symmetric.weight[:, i] * more**0.5
    torch.testing.assert_close(general(values, values, element), symmetric(values, values, element))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_specialized_networks_are_the_same_functions(shape: tuple[int, int, int]) -> None:
    model, graph = backbone(*shape), from_ase(molecule("C2H6"), 3.0)
    before = features(model, graph)
    model.specialize()
    kinds = {type(part) for part in model.modules()}
    assert (UnrolledCoupling in kinds) == (shape[2] > 1)
    assert ElementCoupling not in kinds
    torch.testing.assert_close(features(model, graph), before, rtol=1e-12, atol=1e-12)


def test_messages_have_channels_of_their_own() -> None:
    convolution = backbone(1, 0, 2).interactions[0].convolution
    assert convolution.linear.weight.shape == (1, 4, 3)
