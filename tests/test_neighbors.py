"""Every engine finds the same pairs, and these are the ones that counting finds."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule, nanotube
from ase.neighborlist import primitive_neighbor_list
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import ndarray
from scipy.spatial.transform import Rotation

from phicalc.neighbors import ENGINES, NeighborList, available_engines, engines, neighbor_list
from phicalc.neighbors.checks import as_numpy
from phicalc.neighbors.engines import search_of

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
OPEN, PERIODIC = (False, False, False), (True, True, True)

each_engine = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                name not in available_engines(), reason=f"the engine {name} is not installed"
            ),
        )
        for name in ENGINES
    ],
)


class Structure(NamedTuple):
    positions: ndarray
    cell: ndarray
    pbc: tuple[bool, bool, bool]
    cutoff: float

    def find(self, engine: str = "auto", half: bool = False) -> NeighborList:
        return neighbor_list(
            torch.tensor(np.asarray(self.positions, dtype=float).reshape(-1, 3)),
            torch.tensor(np.asarray(self.cell, dtype=float)),
            torch.tensor(self.pbc),
            self.cutoff,
            engine=engine,
            half=half,
        )

    def vectors(self, rows: ndarray) -> ndarray:
        """Vectors of pairs given as rows i, j, shifts."""
        offsets = rows[:, 2:] @ self.cell
        return self.positions[rows[:, 1]] + offsets - self.positions[rows[:, 0]]


def from_atoms(atoms: Atoms, cutoff: float) -> Structure:
    return Structure(atoms.positions, atoms.cell.array, tuple(atoms.pbc.tolist()), cutoff)


def to_rows(found: NeighborList) -> ndarray:
    """Sort into a table i, j, shifts: equal lists are equal arrays."""
    rows = torch.cat([found.edge_index.T, found.edge_shifts], dim=1).numpy()
    return rows[np.lexsort(rows.T[::-1])]


def count_pairs(structure: Structure, margin: float = 0.0) -> ndarray:
    """Every pair and image shorter than the cutoff plus a margin, by trying more than enough."""
    positions, cell, pbc, cutoff = structure
    n_atoms = len(positions)
    inverse = np.zeros((3, 3))
    inverse[:, list(pbc)] = np.linalg.pinv(cell[list(pbc)])
    differences = positions[None] - positions[:, None]
    nearest = -np.round(differences @ inverse).astype(int)
    # A vector shorter than the cutoff has fractions up to cutoff/height; rounding hid up to 1/2.
    reach = np.floor(cutoff * np.linalg.norm(inverse, axis=0) + 0.501).astype(int)
    steps = np.stack(
        np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1
    ).reshape(-1, 3)
    shifts = nearest[:, :, None] + steps
    vectors = differences[:, :, None] + shifts @ np.where(np.array(pbc)[:, None], cell, 0.0)
    inside = np.linalg.norm(vectors, axis=-1) < cutoff + margin
    itself = np.eye(n_atoms, dtype=bool)[:, :, None] & ~shifts.any(axis=-1)
    centres, others, which = np.nonzero(inside & ~itself)
    rows = np.column_stack([centres, others, shifts[centres, others, which]]).reshape(-1, 5)
    return rows[np.lexsort(rows.T[::-1])]


def as_set(rows: ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, rows.tolist()))


def random_atoms(n_atoms: int, cell: ndarray, pbc: tuple, cutoff: float, spread=1.0) -> Structure:
    """Atoms anywhere in (or, with a spread above 1, around) a cell."""
    rng = np.random.default_rng(n_atoms)
    cell = np.asarray(cell, dtype=float)
    edges = np.where(cell.any(axis=1)[:, None], cell, 6 * np.eye(3))
    return Structure(spread * (rng.random((n_atoms, 3)) - 0.5) @ edges, cell, pbc, cutoff)


def lattice(*rows: tuple[float, float, float]) -> ndarray:
    return np.array(rows, dtype=float)


TRICLINIC = lattice((6, 0, 0), (2, 5, 0), (-1, 2, 7))
SHEARED = lattice((4, 0, 0), (41, 4, 0), (-23, 57, 4))

STRUCTURES: dict[str, Callable[[], Structure]] = {
    "molecule": lambda: from_atoms(molecule("C6H6"), 3.0),
    "molecule in a cell": lambda: from_atoms(molecule("C6H6", vacuum=1.0), 4.0),
    "molecule outside its cell": lambda: random_atoms(20, np.eye(3), OPEN, 4.0, spread=12.0),
    "molecule far away": lambda: Structure(
        molecule("C6H6").positions + 1e5, np.zeros((3, 3)), OPEN, 3.0
    ),
    "fragments far apart": lambda: Structure(
        np.concatenate([molecule("C6H6").positions + x for x in (0, 3e4)]),
        np.zeros((3, 3)),
        OPEN,
        3.0,
    ),
    "two atoms very far apart": lambda: Structure(
        np.array([[0, 0, 0], [1e6, 0, 0.0], [1e6, 1, 0.0]]), np.zeros((3, 3)), OPEN, 1.5
    ),
    "sparse wire": lambda: random_atoms(4, 600 * np.eye(3), (True, False, False), 1.9),
    "no atoms": lambda: random_atoms(0, np.zeros((3, 3)), OPEN, 4.0),
    "no atoms, periodic": lambda: random_atoms(0, TRICLINIC, PERIODIC, 4.0),
    "one atom": lambda: random_atoms(1, np.zeros((3, 3)), OPEN, 4.0),
    "one atom, periodic": lambda: random_atoms(1, TRICLINIC, PERIODIC, 5.5, spread=9.0),
    "nothing within the cutoff": lambda: from_atoms(bulk("Cu"), 1.0),
    "cubic": lambda: random_atoms(30, 7 * np.eye(3), PERIODIC, 3.4),
    "slab open along x": lambda: random_atoms(15, TRICLINIC, (False, True, True), 4.0, 2.0),
    "slab open along y": lambda: random_atoms(15, TRICLINIC, (True, False, True), 4.0, 2.0),
    "slab open along z": lambda: random_atoms(15, TRICLINIC, (True, True, False), 4.0, 2.0),
    "slab without third vector": lambda: from_atoms(fcc111("Al", (2, 2, 3)), 5.0),
    "slab with useless third vector": lambda: random_atoms(
        15, lattice((6, 0, 0), (0, 5, 0), (6, 5, 0)), (True, True, False), 4.0, spread=2.0
    ),
    "wire along x": lambda: random_atoms(12, TRICLINIC, (True, False, False), 4.0, spread=2.0),
    "wire along y": lambda: random_atoms(12, TRICLINIC, (False, True, False), 4.0, spread=2.0),
    "wire along z": lambda: random_atoms(12, TRICLINIC, (False, False, True), 4.0, spread=2.0),
    "wire without other vectors": lambda: from_atoms(nanotube(3, 0), 5.0),
    "skewed wire": lambda: random_atoms(
        9, lattice((1, 2, 3), (0, 0, 0), (0, 0, 0)), (True, False, False), 5.0, spread=3.0
    ),
    "triclinic": lambda: random_atoms(20, TRICLINIC, PERIODIC, 4.0),
    "triclinic, far outside": lambda: random_atoms(10, TRICLINIC, PERIODIC, 4.0, spread=2000.0),
    "left-handed": lambda: random_atoms(20, TRICLINIC[[1, 0, 2]], PERIODIC, 4.0, spread=3.0),
    "mirrored": lambda: random_atoms(20, -TRICLINIC, PERIODIC, 4.0, spread=3.0),
    "left-handed slab": lambda: random_atoms(
        15, TRICLINIC[[1, 0, 2]], (True, True, False), 4.0, spread=2.0
    ),
    "sheared": lambda: random_atoms(6, SHEARED, PERIODIC, 4.5, spread=3.0),
    "sheared slab": lambda: random_atoms(6, SHEARED, (True, True, False), 4.5),
    "sheared, left-handed": lambda: random_atoms(6, SHEARED[[0, 2, 1]], PERIODIC, 4.5),
    "large and sheared": lambda: random_atoms(40, 5 * SHEARED, PERIODIC, 6.0),
    "primitive copper": lambda: from_atoms(bulk("Cu"), 8.0),
    "tiny and outside": lambda: Structure(np.full((1, 3), 77.7), 3.6 * FCC, PERIODIC, 8.0),
    "tiny, two atoms": lambda: random_atoms(2, 0.4 * TRICLINIC, PERIODIC, 7.0, spread=5.0),
    "flat cell": lambda: random_atoms(3, np.diag([9.0, 9.0, 0.5]), PERIODIC, 4.0),
    "on the faces": lambda: Structure(
        np.array([[0, 0, 0], [1, 0, 0], [0.5, 1, 0], [1, 1, 1], [-1, 2, 0.5]]) @ TRICLINIC,
        TRICLINIC,
        PERIODIC,
        5.0,
    ),
    "coincident atoms": lambda: Structure(np.zeros((2, 3)), 3 * np.eye(3), PERIODIC, 4.0),
}


@each_engine
@pytest.mark.parametrize("name", STRUCTURES)
def test_list_is_what_counting_finds(engine: str, name: str) -> None:
    structure = STRUCTURES[name]()
    found = structure.find(engine)
    rows = to_rows(found)

    np.testing.assert_array_equal(rows, count_pairs(structure))
    assert (np.linalg.norm(structure.vectors(rows), axis=1) < structure.cutoff).all()
    assert (found.edge_index[0].diff() >= 0).all(), "not sorted by centre"
    assert found.edge_index.dtype == found.edge_shifts.dtype == torch.int64
    assert found.edge_index.is_contiguous()
    assert found.edge_shifts.is_contiguous()


@each_engine
@pytest.mark.parametrize(
    "name", ["slab open along y", "triclinic", "left-handed", "tiny, two atoms"]
)
def test_vectors_agree_with_ase(engine: str, name: str) -> None:
    structure = STRUCTURES[name]()
    i, j, expected = primitive_neighbor_list(
        "ijD", structure.pbc, structure.cell, structure.positions, structure.cutoff
    )
    rows = to_rows(structure.find(engine))
    vectors = structure.vectors(rows)

    def order(*columns: ndarray) -> ndarray:
        return np.lexsort([*np.round(columns[2], 6).T, columns[1], columns[0]])

    ours, theirs = order(rows[:, 0], rows[:, 1], vectors), order(i, j, expected)
    np.testing.assert_array_equal(rows[ours, :2], np.column_stack([i, j])[theirs])
    np.testing.assert_allclose(vectors[ours], expected[theirs], atol=1e-10)


coordinates = st.floats(-6, 6, allow_subnormal=False).map(lambda x: round(x, 3))


@each_engine
@given(
    cell=arrays(float, (3, 3), elements=coordinates),
    positions=st.integers(0, 6).flatmap(lambda n: arrays(float, (n, 3), elements=coordinates)),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    cutoff=st.floats(0.5, 6),
    spread=st.sampled_from([0.1, 1.0, 100.0]),
)
def test_any_structure(
    engine: str, cell: ndarray, positions: ndarray, pbc: tuple, cutoff: float, spread: float
) -> None:
    if any(pbc):
        lengths = np.linalg.norm(cell[list(pbc)], axis=1)
        assume((lengths > 0.1).all())
        assume(np.linalg.svd(cell[list(pbc)], compute_uv=False)[-1] > 0.8)
    structure = Structure(spread * positions, cell, pbc, cutoff)
    rows = to_rows(structure.find(engine))

    # Pairs within rounding of the cutoff may be counted either way.
    assert len(as_set(rows)) == len(rows), "a pair appears twice"
    assert as_set(count_pairs(structure, -1e-9)) <= as_set(rows)
    assert as_set(rows) <= as_set(count_pairs(structure, 1e-9))
    np.testing.assert_array_equal(rows, to_rows(structure.find("vesin")))


@each_engine
@pytest.mark.parametrize("name", STRUCTURES)
def test_half_list_has_every_pair_once(engine: str, name: str) -> None:
    structure = STRUCTURES[name]()
    found = structure.find(engine, half=True)
    full = as_set(to_rows(structure.find(engine)))
    half = as_set(to_rows(found))

    reverse = {(j, i, -x, -y, -z) for i, j, x, y, z in half}
    assert len(half) == found.edge_index.shape[1]
    assert half.isdisjoint(reverse)
    assert half | reverse == full
    assert all(i < j or (i == j and shift > (0, 0, 0)) for i, j, *s in half for shift in [tuple(s)])
    assert (found.edge_index[0].diff() >= 0).all()


@each_engine
@pytest.mark.parametrize("pbc", [OPEN, PERIODIC])
def test_pairs_at_the_cutoff_are_left_out(engine: str, pbc: tuple) -> None:
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    structure = Structure(positions, 6 * np.eye(3), pbc, 3.0)
    assert structure.find(engine).edge_index.shape == (2, 0)

    longer = structure._replace(cutoff=float(np.nextafter(3.0, 4.0)))
    assert longer.find(engine).edge_index.shape == (2, 4 if any(pbc) else 2)


@each_engine
@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.5, 2.0])
def test_shells_at_the_cutoff_are_the_same_for_all_engines(engine: str, ratio: float) -> None:
    """In a rotated crystal rounding decides about whole shells, in both directions alike."""
    turn = Rotation.from_euler("xyz", [0.3, 1.1, -0.7]).as_matrix()
    atoms = bulk("Al", cubic=True).repeat(3)
    structure = Structure(
        atoms.positions @ turn + 50.1, atoms.cell.array @ turn, PERIODIC, 4.05 * ratio**0.5
    )
    rows = to_rows(structure.find(engine))
    assert as_set(rows) == {(j, i, -x, -y, -z) for i, j, x, y, z in rows.tolist()}
    np.testing.assert_array_equal(rows, to_rows(structure.find("vesin")))


@each_engine
@pytest.mark.parametrize("n_atoms", [40, 1100])
def test_no_neighbor_is_dropped_from_dense_clusters(
    engine: str, n_atoms: int, rng: np.random.Generator
) -> None:
    structure = Structure(rng.random((n_atoms, 3)), np.zeros((3, 3)), OPEN, 2.0)
    found = structure.find(engine)
    assert (found.edge_index[0].bincount() == n_atoms - 1).all()


@each_engine
def test_no_image_is_dropped_from_dense_crystals(engine: str) -> None:
    structure = Structure(np.zeros((1, 3)), np.eye(3), PERIODIC, 7.5)
    found = structure.find(engine)
    assert found.edge_index.shape[1] > 1000
    np.testing.assert_array_equal(to_rows(found), count_pairs(structure))


@each_engine
@pytest.mark.parametrize("pbc", [PERIODIC, (True, True, False), (False, False, True), OPEN])
@pytest.mark.parametrize(
    "sizes", [(5e4, 5e4, 5e4), (2000, 2000, 4), (4, 2000, 2000), (4, 1e6, 4), (1e6, 4, 4)]
)
def test_vacuum_costs_nothing(engine: str, sizes: tuple, pbc: tuple) -> None:
    """Cell lists may fill vacuum with bins (8 GB in one engine) or divide by zero (another)."""
    fractions = np.array([[0.1, 0.1, 0.1], [0.9, 0.9, 0.9], [0.5, 0.5, 0.5]])
    pairs = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    positions = np.concatenate([fractions * sizes + shift for shift in pairs])
    structure = Structure(positions, np.diag(np.array(sizes, dtype=float)), pbc, 3.9)
    np.testing.assert_array_equal(to_rows(structure.find(engine)), count_pairs(structure))


def test_auto_is_vesin_and_needs_no_gradient() -> None:
    structure = STRUCTURES["triclinic"]()
    positions = torch.tensor(structure.positions, requires_grad=True)
    cell = torch.tensor(structure.cell, requires_grad=True)
    found = neighbor_list(positions, cell, torch.tensor(structure.pbc), structure.cutoff)
    vesin = structure.find("vesin")
    assert torch.equal(found.edge_index, vesin.edge_index)
    assert torch.equal(found.edge_shifts, vesin.edge_shifts)


def test_input_is_not_changed() -> None:
    structure = STRUCTURES["slab open along y"]()
    positions, cell = torch.tensor(structure.positions), torch.tensor(structure.cell)
    for engine in available_engines():
        neighbor_list(positions, cell, torch.tensor(structure.pbc), 4.0, engine=engine)
    assert torch.equal(positions, torch.tensor(structure.positions))
    assert torch.equal(cell, torch.tensor(structure.cell))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_result_lies_where_the_positions_lie() -> None:
    structure = STRUCTURES["triclinic"]()
    positions = torch.tensor(structure.positions, device="cuda")
    found = neighbor_list(positions, torch.tensor(structure.cell), torch.tensor(structure.pbc), 4.0)
    assert found.edge_index.device == found.edge_shifts.device == positions.device


# Wrong input --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan"), float("inf")])
def test_cutoff_must_be_positive_and_finite(cutoff: float) -> None:
    with pytest.raises(ValueError, match="`cutoff` must be a positive, finite length"):
        STRUCTURES["cubic"]()._replace(cutoff=cutoff).find()


def test_unknown_engine_lists_the_names() -> None:
    with pytest.raises(ValueError, match="'auto', 'vesin', 'matscipy', 'torch_cluster', got 'ase'"):
        STRUCTURES["cubic"]().find("ase")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite_are_named(value: float) -> None:
    structure = STRUCTURES["cubic"]()
    structure.positions[[4, 17], [0, 2]] = value
    with pytest.raises(ValueError, match=r"for atoms 4, 17 \(2 of 30\); correct the structure"):
        structure.find()


def test_cell_must_be_finite() -> None:
    structure = STRUCTURES["cubic"]()
    structure.cell[2, 2] = np.nan
    with pytest.raises(ValueError, match="`cell` must be finite"):
        structure.find()


@pytest.mark.parametrize("pbc", [PERIODIC, (True, False, False), (True, True, False)])
@pytest.mark.parametrize(
    "cell",
    [
        np.zeros((3, 3)),
        lattice((0, 0, 0), (0, 5, 0), (0, 0, 5)),
        lattice((0, 5, 0), (0, 5, 0), (0, 0, 5)),
    ],
)
def test_periodic_cell_needs_a_volume(cell: ndarray, pbc: tuple) -> None:
    if cell[0].any() and sum(pbc) == 1:
        assert Structure(np.zeros((1, 3)), cell, pbc, 6.0).find().edge_index.shape == (2, 2)
        return
    with pytest.raises(ValueError, match="`cell` has no volume .* set a cell, or pbc to False"):
        Structure(np.zeros((2, 3)), cell, pbc, 4.0).find()


def test_cell_far_smaller_than_the_cutoff_is_refused() -> None:
    with pytest.raises(ValueError, match="`cell` is too small for a cutoff of 5.0 Å.*check the"):
        Structure(np.zeros((1, 3)), 1e-3 * np.eye(3), PERIODIC, 5.0).find()


@pytest.mark.parametrize(("pbc", "farthest"), [(OPEN, 2e9), (PERIODIC, 4e8)])
def test_positions_too_far_to_count_cells_are_refused(pbc: tuple, farthest: float) -> None:
    structure = Structure(np.array([[0.0, 0.0, 0.0], [0.0, -farthest, 0.0]]), FCC, pbc, 4.0)
    with pytest.raises(ValueError, match=r"`positions` must lie within .* wrap the atoms"):
        structure.find()
    near = structure._replace(positions=structure.positions / 4)
    assert near.find().edge_index.shape[1] == len(count_pairs(near))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("positions", torch.zeros(4, 2, dtype=torch.float64)),
        ("positions", torch.zeros(3, dtype=torch.float64)),
        ("positions", torch.zeros(4, 3)),
        ("cell", torch.zeros(1, 3, 3, dtype=torch.float64)),
        ("cell", torch.zeros(3, 3)),
        ("pbc", torch.tensor([True])),
        ("pbc", torch.tensor([1, 1, 1])),
    ],
)
def test_wrong_shapes_and_dtypes_are_named(argument: str, value: torch.Tensor) -> None:
    arguments = {
        "positions": torch.zeros(4, 3, dtype=torch.float64),
        "cell": 5 * torch.eye(3, dtype=torch.float64),
        "pbc": torch.tensor(PERIODIC),
    }
    arguments[argument] = value
    expected = f"`{argument}` must be a tensor of shape .* got shape .* and dtype {value.dtype}"
    with pytest.raises(ValueError, match=expected):
        neighbor_list(**arguments, cutoff=4.0)


def test_array_instead_of_tensor_is_named() -> None:
    # Behind the public function, whose annotations are checked first in tests.
    with pytest.raises(ValueError, match="`cell` must be a tensor .* got ndarray"):
        as_numpy("cell", np.zeros((3, 3)), (3, 3), torch.float64)


@pytest.mark.parametrize(
    ("engine", "library", "command"),
    [
        ("torch_cluster", "torch_cluster", r"pip install --no-build-isolation .*\[cluster\]"),
        ("matscipy", "matscipy.neighbours", r"pip install .*\[materials\]"),
    ],
)
def test_missing_engine_says_what_to_install(
    engine: str, library: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"{engine}.*{command}"):
        STRUCTURES["cubic"]().find(engine)


def test_available_engines_are_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("phicalc.neighbors.search.find_spec", lambda name: real("no_such_library"))
    assert available_engines() == ()
    monkeypatch.setattr("phicalc.neighbors.search.find_spec", lambda name: real("numpy"))
    assert available_engines() == ENGINES == ("vesin", "matscipy", "torch_cluster")


def test_every_file_of_the_folder_is_an_engine() -> None:
    files = {path.stem for path in Path(engines.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(ENGINES) == files
    assert all(callable(search_of(engine)) for engine in ENGINES)
