"""Frames of modes, torsions, approaching pairs, dissociation and compression."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.data import covalent_radii

from phicalc.cli import main
from phicalc.labelling import (
    CalculatorSpec,
    CompressedSampler,
    DissociationSampler,
    ModeSampler,
    PairSampler,
    TorsionSampler,
    label,
)
from phicalc.labelling.samplers import SAMPLERS, Sampler
from phicalc.structures import find_molecules, water_box

SPEC = CalculatorSpec("ase.calculators.emt:EMT")


def frames_of(sampler: Sampler, *structures: Atoms) -> list[tuple[dict, Atoms]]:
    """Return notes and frames of all chains, from fresh copies."""
    found = []
    for chain in sampler.chains(structures):
        atoms = structures[chain.structure]
        for index in range(chain.n_frames):
            atoms = sampler.advance(chain, index, atoms, SPEC)
            found.append((chain.note, atoms))
    return found


def charged(atoms: Atoms) -> Atoms:
    atoms.info["charge"] = 0.0
    return atoms


def dimer() -> Atoms:
    atoms = molecule("H2O") + molecule("CH3OH")
    atoms.positions[3:] += (0, 0, 4.0)
    return charged(atoms)


MADE = {
    "torsions": (TorsionSampler(points=4, displacement=0.01), dimer),
    "pairs": (PairSampler(points=3), dimer),
    "dissociation": (DissociationSampler(points=3), dimer),
    "compressed": (CompressedSampler(points=3), dimer),
    "modes": (ModeSampler(), lambda: charged(molecule("H2O"))),
}


@pytest.mark.parametrize("name", MADE)
def test_frames_repeat_keep_their_atoms_and_say_how_they_were_made(name: str) -> None:
    sampler, make = MADE[name]
    start = make()
    start.set_constraint(FixAtoms([0]))
    before = start.positions.copy()
    one, other = frames_of(sampler, start), frames_of(sampler, start)
    assert len(one) > 2
    for (note, frame), (_, again) in zip(one, other, strict=True):
        assert note["sample"] == name
        assert frame.get_chemical_symbols() == start.get_chemical_symbols()
        assert not frame.constraints
        np.testing.assert_array_equal(frame.positions, again.positions)
    np.testing.assert_array_equal(start.positions, before)
    assert {type(sampler) for sampler, _ in MADE.values()} < set(SAMPLERS.values())


def test_pairs_of_all_elements_reach_their_distances() -> None:
    start = dimer()
    found = frames_of(PairSampler(smallest=0.5, largest=1.0, points=3, copies=1), start)
    kinds = set()
    for note, frame in found:
        i, j = note["atoms"]
        kinds.add("".join(sorted(start.symbols[[i, j]])))
        assert frame.get_distance(i, j) == pytest.approx(note["distance"], abs=1e-5)
        labels = find_molecules(start).labels
        if labels[i] != labels[j]:  # molecules keep their shapes
            for part in (labels == labels[i], labels == labels[j]):
                np.testing.assert_allclose(
                    frame[part].get_all_distances(), start[part].get_all_distances(), atol=1e-9
                )
    assert kinds == {"HH", "CH", "HO", "CO", "OO"}
    closest = {note["distance"] for note, _ in found}
    assert min(closest) == pytest.approx(0.5 * 2 * covalent_radii[1], abs=1e-5)


def test_pairs_in_a_crystal_approach_by_the_nearest_image() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    for note, frame in frames_of(PairSampler(points=2, copies=1, largest=0.8), charged(salt)):
        i, j = note["atoms"]
        assert frame.get_distance(i, j, mic=True) == pytest.approx(note["distance"], abs=1e-5)


def test_clusters_fall_into_molecules_and_molecules_break_at_bonds() -> None:
    sampler = DissociationSampler(largest=5.0, points=4)
    parts = {note["part"] for note, _ in frames_of(sampler, dimer())}
    assert parts == {(0, 1, 2), tuple(range(3, 9))}
    ethanol = charged(molecule("CH3CH2OH"))
    found = frames_of(sampler, ethanol)
    assert len({note["part"] for note, _ in found}) == 8  # all of its bonds
    for note, frame in found:
        part = np.isin(np.arange(9), note["part"])
        between = frame.get_all_distances()[np.ix_(part, ~part)].min()
        before = ethanol.get_all_distances()[np.ix_(part, ~part)].min()
        assert between == pytest.approx(before + note["pulled"], abs=1e-5)
    assert max(note["pulled"] for note, _ in found) == 5.0
    assert not sampler.chains([charged(molecule("C6H6"))[:6]])  # a ring alone has no such bond
    with pytest.raises(ValueError, match="structure 1, .*is periodic"):
        sampler.chains([dimer(), charged(bulk("Cu"))])


def test_torsions_turn_about_double_and_amide_bonds_but_not_in_rings() -> None:
    ethene = charged(molecule("C2H4"))
    found = frames_of(TorsionSampler(points=4), ethene)
    assert [round(note["turned"]) for note, _ in found] == [0, 90, 180, 270]
    torsion = found[0][0]["torsion"]
    start = ethene.get_dihedral(*torsion)
    for note, frame in found:
        turned = (frame.get_dihedral(*torsion) - start) % 360
        assert min(abs(turned - note["turned"]), abs(360 - turned - note["turned"])) < 1e-4
        bonds = find_molecules(ethene).bonds.T
        lengths = [np.linalg.norm(np.subtract(*atoms.positions[bonds]), axis=1)
                   for atoms in (frame, ethene)]  # fmt: skip
        np.testing.assert_allclose(*lengths, atol=1e-9)
    amide = charged(molecule("CH3CONH2"))
    turned = {frozenset(note["torsion"][1:3]) for note, _ in frames_of(TorsionSampler(), amide)}
    assert len(turned) == 2  # C–C and C–N
    assert not TorsionSampler().chains([charged(molecule("C6H6"))])


def test_relaxed_torsions_hold_the_angle_and_lower_the_energy() -> None:
    hydrocarbon = charged(molecule("C2H6"))
    hydrocarbon.rattle(0.05, seed=1)
    sampler = TorsionSampler(points=3, relaxed=True, steps=5, copies=1)
    (chain,) = sampler.chains([hydrocarbon])
    torsion = list(chain.note["torsion"])
    start = hydrocarbon.get_dihedral(*torsion)
    first = sampler.advance(chain, 0, hydrocarbon, SPEC)
    second = sampler.advance(chain, 1, first, SPEC)
    assert first.get_dihedral(*torsion) == pytest.approx(start, abs=1e-3)
    moved = (second.get_dihedral(*torsion) - start) % 360
    assert min(abs(moved - 120), abs(moved - 240)) < 1e-3
    rigid = hydrocarbon.copy()
    rigid.calc = SPEC.make(rigid)
    assert first.get_potential_energy() < rigid.get_potential_energy()


def test_cells_are_scaled_along_periodic_directions_only() -> None:
    slab = Atoms("Cu2", [[0, 0, 0], [1, 1, 2]], cell=[3, 3, 12], pbc=(1, 1, 0))
    sampler = CompressedSampler(smallest=0.8, largest=1.0, points=2, displacement=0.0)
    small, same = (frame for _, frame in frames_of(sampler, charged(slab)))
    np.testing.assert_allclose(small.cell.array, np.diag([2.4, 2.4, 12]))
    np.testing.assert_allclose(small.positions[1], [0.8, 0.8, 2])
    np.testing.assert_allclose(same.positions, slab.positions)
    water = charged(molecule("H2O"))
    small, _ = (frame for _, frame in frames_of(sampler, water))
    assert small.get_distance(0, 1) == pytest.approx(0.8 * water.get_distance(0, 1))


def test_rigid_molecules_keep_their_shape_under_compression() -> None:
    box = charged(water_box(8, seed=1))
    sampler = CompressedSampler(smallest=0.9, largest=1.0, points=2, displacement=0.0, rigid=True)
    small, _ = (frame for _, frame in frames_of(sampler, box))
    assert small.get_volume() == pytest.approx(0.9**3 * box.get_volume())
    bonds = find_molecules(box).bonds
    for i, j in bonds:
        assert small.get_distance(i, j, mic=True) == pytest.approx(box.get_distance(i, j, mic=True))


def test_modes_are_those_of_the_calculator() -> None:
    pair = charged(Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]))
    found = frames_of(ModeSampler(temperature=300.0, points=2, largest=1.0, delta=1e-3), pair)
    assert [note["amplitude"] for note, _ in found] == [0.5, -0.5, 1.0, -1.0]
    shifts = [frame.get_distance(0, 1) - 1.1 for _, frame in found]
    np.testing.assert_allclose(shifts[1::2], np.negative(shifts[::2]), atol=1e-12)

    def force(length: float) -> float:
        atoms = Atoms("N2", [[0, 0, 0], [0, 0, length]])
        atoms.calc = SPEC.make(charged(atoms))
        return atoms.get_forces()[1, 2]

    constant = abs(force(1.101) - force(1.099)) / 0.002
    assert abs(shifts[2]) == pytest.approx(np.sqrt(units.kB * 300 / constant), rel=1e-3)
    water = charged(molecule("H2O"))
    frames = frames_of(ModeSampler(largest=0.05), water)
    assert len(frames) == 6  # three modes, both ways
    for _, frame in frames:
        masses = water.get_masses()[:, None]
        assert np.abs((masses * (frame.positions - water.positions)).sum(axis=0)).max() < 1e-9
        assert np.linalg.norm(frame.positions - water.positions, axis=1).max() < 0.05 + 1e-9
    assert len(ModeSampler().chains([charged(bulk("Cu", cubic=True))])) == 2 * (12 - 3)


@pytest.mark.parametrize("kind", ["torsions", "pairs", "dissociation", "compressed", "modes"])
def test_the_shell_samples(kind: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    ase.io.write("ethanol.xyz", molecule("CH3OH"))
    arguments = ["label", "ethanol.xyz", "--sample", kind, "--points", "2", "--max-force", "1e9",
                 "--calculator", "ase.calculators.emt:EMT", "--output", "out.xyz"]  # fmt: skip
    assert main(arguments) == 0
    frames = ase.io.read("out.xyz", ":")
    assert all(frame.info["sample"] == kind for frame in frames)
    assert main([*arguments[:4], "--interval", "3", *arguments[6:]]) == 2
    assert f"--sample {kind} does not take --interval" in capsys.readouterr().err


def test_labels_of_sampled_frames_are_those_of_the_frames(tmp_path) -> None:
    sampler = CompressedSampler(points=3)
    result = label([charged(bulk("Cu", cubic=True))], SPEC, tmp_path / "out.xyz", sampler)
    for frame in ase.io.read(result.path, ":"):
        again = charged(frame.copy())
        again.calc = SPEC.make(again)
        assert again.get_potential_energy() == pytest.approx(frame.get_potential_energy())


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (TorsionSampler, {"points": 1}, "'points' must be ≥ 2"),
        (PairSampler, {"smallest": 0.0}, "'smallest' must be positive"),
        (DissociationSampler, {"largest": -1.0}, "'largest' must be positive"),
        (CompressedSampler, {"rigid": 1}, "'rigid' must be true or false"),
        (ModeSampler, {"temperature": 0.0}, "'temperature' must be positive"),
    ],
)
def test_impossible_settings(kind, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)
