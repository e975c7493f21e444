"""The backbone: equivariance inside, invariance outside, locality, body order."""

from __future__ import annotations

import pytest
import torch
from ase.build import molecule

from phicalc import nn
from phicalc.backbone import (
    Backbone,
    FromEdges,
    NequIP,
    NequIPSettings,
    Specializable,
    Standardized,
    backbone_class,
    backbones_of,
    check_backbone,
    last_features,
)
from phicalc.backbone.products import ElementCoupling, NodeProduct, UnrolledCoupling
from phicalc.graph import AtomicGraph, from_ase

SHAPES = [(0, 0, 1), (1, 1, 1), (2, 2, 1), (1, 0, 2), (2, 1, 2), (2, 0, 3), (2, 2, 3)]


def backbone(l_max: int, hidden_l_max: int, correlation: int, **options: bool) -> NequIP:
    torch.manual_seed(1)
    return NequIP(
        elements=("H", "O"), layers=3, channels=4, edge_channels=3, l_max=l_max,
        hidden_l_max=hidden_l_max, correlation=correlation, radial_basis=6, cutoff=3.0,
        average_neighbors=8.0, **options,
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


def test_nequip_follows_the_protocol_with_all_that_is_optional() -> None:
    kind = backbone_class("nequip", allow_import=False)
    assert kind is NequIP
    assert kind.Settings is NequIPSettings
    settings = NequIPSettings(layers=3, channels=4, l_max=1, correlation=1)
    made = kind.from_settings(settings, elements=("H", "O"), cutoff=3.0, average_neighbors=8.0)
    check_backbone(made)
    for protocol in (Backbone, FromEdges, Specializable, Standardized):
        assert isinstance(made, protocol)
    assert (made.n_features, last_features(made)) == (12, 4)
    assert NequIP.input_width(NequIPSettings(channels=4)) == 4
    assert made.interactions[0].convolution.linear.weight.shape == (1, 4, 4)
    maps = [linear for linear, _ in made.standardized_maps()]
    assert maps == [each for part in made.interactions for each in (part.mix, part.linear)]
    columns = kind.from_settings(
        settings, elements=("H", "O"), cutoff=3.0, average_neighbors=8.0, vectors=True
    ).n_columns
    assert columns == 15
    with pytest.raises(ValueError, match="l_max of at least 1"):
        kind.from_settings(
            NequIPSettings(l_max=0),
            elements=("H", "O"),
            cutoff=3.0,
            average_neighbors=8.0,
            vectors=True,
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "'layers' must be ≥ 1, got 0"),
        ({"edge_channels": -1}, "'edge_channels' must be ≥ 1, got -1"),
        ({"l_max": 4}, r"'l_max' must be in \[0, 3\], got 4"),
        ({"l_max": 1, "hidden_l_max": 2}, "hidden_l_max must be 0 to l_max=1, got 2"),
        ({"correlation": 4}, r"'correlation' must be in \[1, 3\], got 4"),
        ({"layers": 1.5}, "'layers' must be a whole number, got 1.5"),
        ({"chanels": 3}, "unknown key 'chanels'. Did you mean 'channels'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NequIPSettings(**settings)


def test_what_is_no_backbone_is_refused() -> None:
    for path, reason in {
        "torch.nn:Linear": "it has no Settings, input_width, from_settings",
        "collections:OrderedDict": "it has no Settings, input_width, from_settings, forward",
    }.items():
        with pytest.raises(ValueError, match=f"'{path}' is no backbone: {reason}"):
            backbone_class(path, allow_import=True)
    with pytest.raises(
        ValueError, match="Linear is no backbone: it lacks Settings, input_width, from_settings"
    ):
        check_backbone(torch.nn.Linear(1, 1))


def test_backbones_inside_of_others_are_parts_of_these() -> None:
    inner, outer = backbone(1, 0, 1), backbone(1, 0, 1)
    outer.inner = inner
    whole = torch.nn.ModuleDict({"first": outer, "second": torch.nn.Linear(1, 1), "third": inner})
    assert backbones_of(whole) == {"first": outer}  # a module has one name
    whole = torch.nn.ModuleDict({"first": outer, "other": backbone(1, 0, 1)})
    assert list(backbones_of(whole)) == ["first", "other"]
