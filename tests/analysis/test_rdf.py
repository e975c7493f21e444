"""Pair distributions: known crystals, ideal gases, ASE's own function, small cells, molecules."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.geometry.rdf import get_rdf

from phicalc.analysis.rdf import informative_pair, pair_distribution
from phicalc.structures import water_box


def neighbours_within(found, density: float, radius: float) -> float:
    """Integrate g(r) to a radius: the mean number of neighbours."""
    width = found.radii[1] - found.radii[0]
    edges = np.append(found.radii - width / 2, found.radii[-1] + width / 2)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    inside = found.radii < radius
    return float((found.values * shells)[inside].sum() * density)


def test_agrees_with_ase():
    atoms = water_box(64)
    atoms.rattle(0.3, seed=2)
    found = pair_distribution([atoms], ("O", "O"), largest_radius=6.0, bin_width=0.1)
    expected, radii = get_rdf(atoms, 6.0, 60, elements=["O", "O"])
    np.testing.assert_allclose(found.radii, radii)
    np.testing.assert_allclose(found.values, expected, atol=1e-9)


@pytest.mark.parametrize("repeat", [1, 2])
def test_primitive_cell_has_twelve_nearest_neighbours(repeat):
    """The cell of one atom is smaller than its first shell of neighbours, all of them images."""
    atoms = bulk("Cu").repeat(repeat)
    found = pair_distribution([atoms], ("Cu", "Cu"))
    assert neighbours_within(found, len(atoms) / atoms.get_volume(), 3.0) == pytest.approx(12)


def test_unlike_pairs_of_a_crystal():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)
    found = pair_distribution([atoms], ("Na", "Cl"))
    density = np.sum(atoms.symbols == "Cl") / atoms.get_volume()
    assert found.radii[np.argmax(found.values)] == pytest.approx(2.82, abs=0.05)
    assert neighbours_within(found, density, 3.5) == pytest.approx(6)


@pytest.mark.parametrize(("pair", "expected"), [(("O", "H"), 2), (("H", "O"), 1)])
def test_each_oxygen_has_two_hydrogens_and_each_hydrogen_one_oxygen(pair, expected):
    atoms = water_box(64)
    found = pair_distribution([atoms], pair)
    density = np.sum(atoms.symbols == pair[1]) / atoms.get_volume()
    assert neighbours_within(found, density, 1.2) == pytest.approx(expected)


def test_ideal_gas_is_one_everywhere(rng):
    frames = [
        Atoms("Ar500", rng.uniform(0, 20.0, (500, 3)), cell=[20.0] * 3, pbc=True) for _ in range(20)
    ]
    found = pair_distribution(frames, ("Ar", "Ar"), bin_width=0.25)
    assert found.normalized
    np.testing.assert_allclose(found.values[8:], 1.0, atol=0.05)


def test_radius_ends_at_half_the_cell():
    assert pair_distribution([water_box(64)], ("O", "O")).radii[-1] == pytest.approx(6.2, abs=0.05)
    assert pair_distribution([bulk("Cu")], ("Cu", "Cu")).radii[-1] == pytest.approx(4, abs=0.05)


def test_molecules_give_a_density_of_distances():
    water = molecule("H2O")
    found = pair_distribution([water], ("O", "H"))
    assert not found.normalized
    width = found.radii[1] - found.radii[0]
    assert found.values.sum() * width == pytest.approx(1)
    assert found.radii[np.argmax(found.values)] == pytest.approx(0.969, abs=0.03)


@pytest.mark.parametrize(
    ("atoms", "pair"),
    [
        (water_box(8), ("O", "O")),
        (bulk("NaCl", "rocksalt", a=5.64), ("Na", "Cl")),
        (bulk("Cu"), ("Cu", "Cu")),
        (molecule("H2O"), ("O", "H")),
        (molecule("H2"), ("H", "H")),
        (molecule("CH3CH2OH"), ("C", "O")),
        (Atoms("H"), None),
        (Atoms("Ar"), None),
    ],
    ids=str,
)
def test_most_informative_pair(atoms, pair):
    assert informative_pair(atoms) == pair


def test_missing_element_and_no_frames_are_refused():
    with pytest.raises(ValueError, match=r"H2O has no C atom"):
        pair_distribution([molecule("H2O")], ("O", "C"))
    with pytest.raises(ValueError, match="at least one frame"):
        pair_distribution([], ("O", "O"))
