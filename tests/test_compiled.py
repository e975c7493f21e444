"""Compiled functions give the results of plain torch, or are not used."""

from __future__ import annotations

import copy
import logging
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from phicalc.calculators.phicalculator import PhiCalculator
from phicalc.compiled import (
    CompiledPredictor,
    cache_folder,
    network,
    predictor,
    store,
)
from phicalc.compiled.cache import key
from phicalc.compiled.tracing import trace
from phicalc.compiled.whole import _inputs, kind_of
from phicalc.derivatives import Prediction, predict
from phicalc.electrostatics import CoulombSettings
from phicalc.graph import AtomicGraph, collate, edge_vectors, from_ase, slots, unflattened
from phicalc.inference.conditions import conditions_of
from phicalc.potential import Potential, build_potential
from phicalc.uncertainty import LastLayerUncertainty

from .tiny import flat_config

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++)"),
    pytest.mark.xdist_group("compiled"),
]
THOROUGH = pytest.mark.thorough


def make_potential(**settings: object) -> Potential:
    defaults = {
        "elements": ("Na", "Cl"), "cutoff": 3.5, "layers": 1, "channels": 2, "l_max": 1,
        "correlation": 1, "average_neighbors": 6.0, "radial_basis": 3,
    }  # fmt: skip
    potential = build_potential(flat_config(**{**defaults, **settings}), seed=3).double()
    return potential.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def potential() -> Potential:
    return make_potential(hardness="environment", smearing="trained", atomic_dipoles=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("functions")


def salt(*repeats: int, charge: float = 0.0) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6).repeat(repeats)
    atoms.rattle(0.1, seed=4)
    atoms.info["charge"] = charge
    return atoms


def cluster(n: int) -> Atoms:
    atoms = salt(1, 1, n, charge=1.0)
    atoms.pbc = False
    return atoms


def prepared(potential: Potential, atoms: Atoms) -> AtomicGraph:
    return potential.prepare(from_ase(atoms, potential.cutoff))


def assert_same(found: Prediction, expected: Prediction, tolerance: float = 1e-10) -> None:
    tensors = ("energy", "atomic_energies", "forces", "stress", "charges", "atomic_dipoles")
    for name in (*tensors, "last_features"):
        first, second = getattr(found, name), getattr(expected, name)
        assert (first is None) == (second is None)
        if second is not None:
            scale = float(second.abs().max())
            torch.testing.assert_close(first, second, rtol=0, atol=tolerance * scale)
    assert list(found.terms) == list(expected.terms)
    for name, term in expected.terms.items():
        torch.testing.assert_close(found.terms[name], term, rtol=1e-10, atol=1e-9)


def write_nothing(*given: object) -> None:
    """Stand in for the compiler: files with nothing to run in them."""
    for path in given[-1]:
        path.write_bytes(b"nothing " + path.name.encode())


def forbid(*_: object, **__: object) -> None:
    raise AssertionError("nothing is to be compiled here")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("cluster", {"l_max": 0}),  # whatever has more in it takes the compiler minutes
        pytest.param("cluster", None, marks=THOROUGH),
        pytest.param("crystal", None, marks=THOROUGH),
    ],
    ids=["small", "cluster", "crystal"],
)
def test_one_function_serves_all_sizes_and_processes(
    potential, folder, kind, settings, monkeypatch
):
    potential = potential if settings is None else make_potential(**settings)
    stress = kind == "crystal"
    make = {"crystal": lambda n: salt(1, 2, n, charge=0.5 * n), "cluster": cluster}[kind]
    first = CompiledPredictor(potential, True, folder)
    graph = prepared(potential, make(3))
    assert_same(first(graph, stress=stress), predict(potential, graph, stress=stress))
    monkeypatch.setattr(predictor, "compile_whole", forbid)
    for each in (first, CompiledPredictor(potential, "auto", folder)):
        for size in (2, 5, 9):
            graph = prepared(potential, make(size))
            assert_same(each(graph, stress=stress), predict(potential, graph, stress=stress))
        assert [function is not None for function in each.functions.values()] == [True]


@pytest.mark.thorough
def test_error_bars_leave_compiled_results_as_they_are(folder, monkeypatch):
    """The function is the one without error bars, which are the same as uncompiled."""
    monkeypatch.setenv("PHICALC_CACHE", str(folder))
    potential = make_potential(l_max=0)
    potential.uncertainty = LastLayerUncertainty(potential.n_last, 2).double()
    potential.uncertainty.whitening.copy_(torch.eye(potential.n_last))
    potential.uncertainty.energy_scale.fill_(1.0)
    potential.uncertainty.bounds.fill_(1e6)
    results, bars = [], []
    for mode, wanted in ((True, False), (True, True), (False, True)):
        atoms = cluster(3)
        atoms.calc = PhiCalculator(
            potential, device="cpu", dtype="float64", compile=mode, uncertainty=wanted
        )
        results.append((atoms.get_potential_energy(), atoms.get_forces().tobytes()))
        bars.append(atoms.calc.deviations)
    assert results[0] == results[1]
    assert bars[0] == {}
    assert bars[1]["energy_std"] == pytest.approx(bars[2]["energy_std"], rel=1e-8)
    np.testing.assert_allclose(bars[1]["energies_std"], bars[2]["energies_std"], rtol=1e-8)


@pytest.mark.thorough
def test_single_precision_with_tables_of_radial_functions(folder):
    potential = make_potential(l_max=1, layers=2, hidden_l_max=1, head="none").float()
    compiled = CompiledPredictor(potential, True, folder)
    for size in (3, 6):
        graph = prepared(potential, salt(1, 2, size))
        found, expected = compiled(graph), predict(potential, graph)
        scale = max(float(expected.forces.abs().max()), 1.0)
        torch.testing.assert_close(found.forces, expected.forces, rtol=0, atol=1e-5 * scale)
    assert [function is not None for function in compiled.functions.values()] == [True]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["crystal", "cluster", "crystal in a field"])
def test_charges_that_flow_along_links(folder, kind):
    potential = make_potential(head={"name": "acks2", "formal_charges": "element"})
    make = cluster if kind == "cluster" else lambda n: salt(1, 2, n)
    field = [[0.02, 0.03, -0.05]] if "field" in kind else None
    compiled, stress = CompiledPredictor(potential, True, folder), kind != "cluster"
    for size in (3, 5, 9):
        graph = prepared(potential, make(size))
        if field is not None:
            graph = graph._replace(external_field=torch.tensor(field).double())
        assert_same(compiled(graph, stress=stress), predict(potential, graph, stress=stress))
    assert [function is not None for function in compiled.functions.values()] == [True]


@pytest.mark.thorough
def test_poissons_equation_stays_outside_of_large_functions(folder):
    """Structures of up to 200 atoms are predicted as a whole, larger ones around the network."""
    potential = make_potential(head="solve+coulomb", phi_channels=2)
    compiled = CompiledPredictor(potential, True, folder)
    for size in (3, 4, 100):
        graph = prepared(potential, salt(1, 1, size))
        assert_same(compiled(graph), predict(potential, graph), tolerance=1e-8)
    assert [function is not None for function in compiled.functions.values()] == [True]
    large = prepared(potential, salt(1, 1, 101))
    assert kind_of(large, False) is not None
    assert kind_of(large, False, potential.head.dense_atoms) is None


@pytest.mark.thorough
def test_calculator_is_the_same_compiled(potential, folder, monkeypatch):
    monkeypatch.setenv("PHICALC_CACHE", str(folder))
    assert cache_folder() == folder
    atoms = salt(1, 2, 2)
    results = {}
    for mode in (False, True):
        calc = PhiCalculator(potential, device="cpu", dtype="float64", compile=mode)
        stress = calc.get_stress(atoms)
        results[mode] = calc.get_forces(atoms), stress, calc.get_charges(atoms)
    monkeypatch.setattr(predictor, "predict", forbid)
    atoms.rattle(0.01, seed=5)
    compiled = calc.get_forces(atoms)
    for mode in (False, True):  # a copy loads its functions anew, and compares them once
        monkeypatch.setattr(predictor, "predict", predict)
        other = pickle.loads(pickle.dumps(calc)) if mode else copy.deepcopy(calc)
        np.testing.assert_array_equal(other.get_forces(atoms), compiled)
    for plain, fast in zip(results[False], results[True], strict=True):
        np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-10 * np.abs(plain).max())


def test_auto_does_not_compile(potential, tmp_path, monkeypatch):
    monkeypatch.setattr(predictor, "compile_whole", forbid)
    monkeypatch.setattr(network, "_compile", forbid)
    auto = CompiledPredictor(potential, "auto", tmp_path)
    graph = prepared(potential, salt(1, 2, 2))
    for each in (graph, collate([graph, graph])):
        assert_same(auto(each), predict(potential, each), 0.0)
    assert list(auto.functions.values()) == [None]
    assert list(auto._hybrid.backbone.halves.values()) == [None]


def slab(*repeats: int) -> Atoms:
    atoms = salt(*repeats)
    atoms.pbc = (True, True, False)
    return atoms


@pytest.mark.thorough
@pytest.mark.parametrize("feedback", ["none", "network"])
def test_compiled_network_serves_all_other_structures(folder, feedback, monkeypatch):
    options = {} if feedback == "none" else {"atomic_dipoles": True, "gate": False}
    potential = make_potential(charge_feedback=feedback, edge_channels=3, correlation=2, **options)
    first = CompiledPredictor(potential, True, folder)
    crystal = prepared(potential, salt(1, 2, 3))
    planner = potential.coulomb_planner(CoulombSettings(1e-4, "mesh"))
    mesh = potential.prepare(from_ase(salt(2, 2, 3), potential.cutoff), planner)
    pieces, unset = salt(1, 2, 2), ("total_charge", "external_field", "electrode_potential")
    pieces.set_array("fragments", np.arange(len(pieces)) % 2)
    pieces.info["fragment_charges"] = [0.5, -0.5]
    fragments = conditions_of(pieces, dict.fromkeys(unset)).apply(
        from_ase(pieces, potential.cutoff)
    )
    graphs = [
        (collate([crystal, prepared(potential, salt(1, 2, 2, charge=1.0))]), True),
        (collate([prepared(potential, cluster(2)), prepared(potential, cluster(4))]), False),
        (prepared(potential, slab(1, 2, 3)), False),
        (potential.prepare(fragments), True),
        (mesh, True),
    ]
    for graph, stress in graphs:
        assert_same(first(graph, stress=stress), predict(potential, graph, stress=stress))
    networks = [first._hybrid.backbone]
    if feedback == "network":
        networks.append(first._hybrid.feedback.network)
    assert [list(each.halves) for each in networks] == [[False], [True]][: len(networks)]
    assert all(half is not None for each in networks for half in each.halves.values())
    monkeypatch.setattr(network, "_compile", forbid)
    again = CompiledPredictor(potential, "auto", folder)
    graph, stress = graphs[0]
    assert_same(again(graph, stress=stress), predict(potential, graph, stress=stress))
    assert again._hybrid.backbone.halves[False] is not None
    copied = pickle.loads(pickle.dumps(again))
    assert_same(copied(graph, stress=stress), predict(potential, graph, stress=stress))


def test_excerpts_are_the_same_network_on_fewer_atoms(potential):
    graph = prepared(potential, salt(1, 2, 6))
    element = potential.element_of_number[graph.atomic_numbers]
    inputs = [potential.embedding[element], element, edge_vectors(graph), graph.edge_index[1],
              graph.edge_of_slot]  # fmt: skip
    few = network._excerpt(inputs, 9)
    inside = (graph.edge_index < 9).all(0)
    expected = [inputs[0][:9], element[:9], inputs[2][inside], inputs[3][inside],
                slots(graph.edge_index[0][inside], 9)[0]]  # fmt: skip
    features = potential.backbone.propagate(*few)
    torch.testing.assert_close(features, potential.backbone.propagate(*expected))
    assert 9 < len(few[2]) < graph.n_edges
    everything = network._excerpt(inputs)
    assert all(map(torch.equal, everything, inputs))


def test_wrong_networks_are_not_used(potential, tmp_path, monkeypatch, caplog):
    class Wrong(network._Halves):
        def __init__(self, _: object, wanted: tuple[int, ...]):
            def run(*tensors: torch.Tensor) -> list[torch.Tensor]:
                return network._with_gradients(potential.backbone, wanted, *tensors)

            def zeros(n_atoms: int) -> torch.Tensor:
                return torch.zeros(n_atoms, potential.backbone.n_columns).double()

            self.forward = lambda *inputs: run(*inputs, zeros(len(inputs[0])))[:1]
            self.backward = lambda *inputs: [1.01 * each for each in run(*inputs)[1:]]
            self.wanted = wanted

    monkeypatch.setattr(network, "_compile", write_nothing)
    monkeypatch.setattr(store, "load_function", lambda path: forbid)
    monkeypatch.setattr(network, "_Halves", Wrong)
    graph = prepared(potential, slab(1, 2, 3))
    with caplog.at_level(logging.WARNING):
        assert_same(CompiledPredictor(potential, True, tmp_path)(graph), predict(potential, graph))
    assert "compiled gradients differ by" in caplog.text


def test_functions_of_other_weights_kinds_and_precision_have_other_names(potential):
    kinds = [kind_of(prepared(potential, salt(1, 2, 2)), stress) for stress in (False, True)]
    names = [key(potential, kind) for kind in kinds]
    changed = copy.deepcopy(potential)
    changed.embedding[0, 0] += 1e-3
    names += [key(changed, kinds[0]), key(copy.deepcopy(potential).float(), kinds[0])]
    names += [key(make_potential(hardness_floor=2.0), kinds[0])]
    assert len(set(names)) == len(names) == 5
    assert key(copy.deepcopy(potential), kinds[0]) == names[0]


def test_some_structures_are_not_predicted_as_a_whole(potential):
    crystal = prepared(potential, salt(1, 2, 2))
    planner = potential.coulomb_planner(CoulombSettings(1e-4, "mesh"))
    mesh = potential.prepare(from_ase(salt(1, 2, 2), potential.cutoff), planner)
    lonely = prepared(potential, Atoms("Na", info={"charge": 1}))
    no_pairs = prepared(potential, Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.0]]))
    assert kind_of(crystal, True) is not None
    for graph in (collate([crystal, crystal]), prepared(potential, slab(1, 2, 2)), mesh, lonely,
                  no_pairs):  # fmt: skip
        assert kind_of(graph, False) is None
    for graph in (lonely, no_pairs):  # too small for compiled networks too
        assert_same(CompiledPredictor(potential, True)(graph), predict(potential, graph), 0.0)


def test_failure_is_said_once_and_survived(potential, tmp_path, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise RuntimeError("no compiler\nlong story")

    monkeypatch.setattr(predictor, "compile_whole", fail)
    compiled = CompiledPredictor(potential, True, tmp_path)
    graph = prepared(potential, salt(1, 2, 2))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_same(compiled(graph), predict(potential, graph), 0.0)
    messages = [record.getMessage() for record in caplog.records]
    assert sum("continuing uncompiled" in message for message in messages) == 1
    assert "RuntimeError: no compiler" in messages[-1]
    assert "long story" not in messages[-1]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["latent+links", "acks2"])
def test_what_is_traced_serves_all_sizes(head):
    potential = make_potential(head=head, l_max=0)
    first, other = (prepared(potential, cluster(n)) for n in (3, 5))
    names = list(_inputs(first))

    def forces(*tensors):
        graph = unflattened(dict(zip(names, tensors, strict=True)))
        return [predict(potential, graph).forces]

    traced = trace(forces, list(_inputs(first).values()))
    (found,) = traced(*_inputs(other).values())
    torch.testing.assert_close(found, predict(potential, other).forces, rtol=0, atol=1e-10)


def test_nothing_is_compiled_for_other_devices(potential, tmp_path, caplog):
    elsewhere = copy.deepcopy(potential).to("meta")
    with caplog.at_level(logging.WARNING):
        assert CompiledPredictor(elsewhere, "auto", tmp_path).mode is False
        assert not caplog.records
        assert CompiledPredictor(elsewhere, True, tmp_path).mode is False
    assert "models are compiled for the CPU, not for meta" in caplog.text


def test_functions_that_fail_later_are_given_up(potential, tmp_path, monkeypatch, caplog):
    graph = prepared(potential, salt(1, 2, 2))
    compiled = CompiledPredictor(potential, "auto", tmp_path)

    def fail(_: object) -> Prediction:
        raise RuntimeError("expected another size")

    compiled.functions[kind_of(graph, False)] = fail
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_same(compiled(graph), predict(potential, graph), 0.0)
    assert caplog.text.count("expected another size") == 1


def test_wrong_functions_are_not_used(potential, tmp_path, monkeypatch, caplog):
    graph = prepared(potential, salt(1, 2, 2))

    class Wrong:
        def __init__(self, *_: object) -> None: ...

        def __call__(self, graph: AtomicGraph) -> Prediction:
            right = predict(potential, graph)
            return right._replace(forces=right.forces + 1e-8)

    monkeypatch.setattr(predictor, "compile_whole", lambda *given: given[-1].write_bytes(b"same"))
    monkeypatch.setattr(store, "load_function", lambda path: forbid)
    monkeypatch.setattr(predictor, "WholePrediction", Wrong)
    compiled = CompiledPredictor(potential, True, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert_same(compiled(graph), predict(potential, graph), 0.0)
    assert "compiled forces differ by" in caplog.text


def test_folder_is_that_of_the_user(monkeypatch):
    monkeypatch.delenv("PHICALC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/phicalc")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "phicalc"


def test_molecules_without_neighbours_are_no_obstacle(potential):
    atoms = molecule("NaCl")
    atoms.set_distance(0, 1, 9.0)
    graph = prepared(potential, atoms)
    assert graph.n_edges == 0
    assert_same(CompiledPredictor(potential, "auto")(graph), predict(potential, graph), 0.0)


def test_importing_phicalc_loads_no_compiler():
    """A process that compiles nothing does not wait for torch's compiler, nor does a calculator."""
    code = (
        "import sys; from phicalc import PhiCalculator, CommitteeCalculator; import phicalc.cli; "
        "loaded = 'torch._dynamo' in sys.modules or 'torch._inductor' in sys.modules; "
        "print('compiler' if loaded else 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"
