from __future__ import annotations

import re

import ase.io
import numpy as np
import pytest
from ase.units import GPa, Hartree
from matplotlib.image import imread

from phicalc import cli
from phicalc.data.config import KeysConfig
from phicalc.data.frames import label_atoms
from phicalc.data.inspection import inspect_frames
from phicalc.data.inspection_page import inspect_files

from .near_frames import crystals, labelled, molecules


@pytest.fixture
def images(carbon_chain):
    """Structures with sound labels, to be spoilt."""
    return ase.io.read(carbon_chain, ":")


def texts(images, wrong=True) -> list[str]:
    frames = [label_atoms(a, KeysConfig(), origin=f"frame {i}") for i, a in enumerate(images)]
    return [
        f"{finding.text}: {'; '.join(finding.origins)}"
        for finding in inspect_frames(frames).findings
        if finding.is_wrong == wrong
    ]


def test_sound_data_have_nothing_wrong(images):
    frames = [label_atoms(atoms, KeysConfig()) for atoms in images]
    found = inspect_frames(frames)
    assert found.is_sound
    assert found.findings == []
    assert found.table["frames"] == "30"
    assert found.table["atoms"] == "12 to 13, mean 12.5"
    assert found.table["elements"] == "H (30), C (30)"
    assert found.table["total charges (e)"] == "+0 (15), +1 (15)"
    assert found.table["stress (eV/Å³)"] == "none"
    forces = np.concatenate([atoms.get_forces().ravel() for atoms in images])
    rms = np.sqrt(np.mean(forces**2))
    assert f"30 frames; mean {forces.mean():.4g}, rms {rms:.4g}" in found.table["forces (eV/Å)"]


def spoil_energy(images):
    images[3].calc.results["energy"] += 5.0


def spoil_forces(images):
    images[3].calc.results["forces"] *= 1000.0


def spoil_net_force(images):
    images[3].calc.results["forces"][:, 1] += 0.1


def spoil_charges(images):
    images[3].calc.results["charges"][0] += 0.02


def spoil_total_charge(images):
    images[3].info["charge"] = 2


def spoil_atoms(images):
    atoms = images[3]
    atoms.positions[0] = atoms.positions[1] + [0, 0, 0.3]


def spoil_copy(images):
    images.append(images[3].copy())
    images[-1].calc = images[3].calc


def spoil_labels(images):
    del images[3].calc.results["forces"]


def spoil_cell(images):
    images[3].set_cell([20, 20, 20])
    images[3].pbc = True


def spoil_units(images):
    for atoms in images:
        atoms.calc.results["energy"] *= 23.06
        atoms.calc.results["forces"] *= 23.06


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_energy, "1 frames have energies per atom far from.*frame 3 \\(\\+0.361"),
        (spoil_forces, "1 frames have much larger forces.*frame 3"),
        (spoil_net_force, "1 frames have forces that do not sum to zero: frame 3 \\(0.100 eV/Å"),
        (spoil_charges, "1 frames have charges that do not sum.*frame 3 \\(\\+0.020 e\\)"),
        (spoil_total_charge, "1 frames have charges that do not sum.*frame 3 \\(-2.000 e\\)"),
        (spoil_atoms, "1 frames have atoms nearer than 0.5.*frame 3"),
        (spoil_copy, "1 frames repeat an earlier one exactly: frame 30 \\(same as frame 3\\)"),
        (spoil_labels, "1 of 30 frames have no forces: frame 3"),
        (spoil_cell, "periodic directions are mixed, even of the same formula.*: C10H2"),
        (spoil_units, r"of 31 eV/Å \(root mean square\) are large: perhaps kcal"),
    ],
)
def test_what_is_wrong_is_found(images, spoil, message):
    spoil(images)
    found = texts(images)
    assert any(re.search(message, text) for text in found), found


def test_what_may_be_meant_is_noted(images):
    del images[3].calc.results["charges"]
    nearly = images[4].copy()
    nearly.calc = images[4].calc
    nearly.positions += 1e-3 * np.sin(np.arange(36)).reshape(12, 3)
    images.append(nearly)
    assert texts(images) == []
    notes = texts(images, wrong=False)
    assert any("1 of 31 frames have no charges; to train on it" in text for text in notes)
    assert any("1 frames differ from another by less than 0.01 Å: frame 30" in t for t in notes)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"energy": 1 / Hartree}, "energies are in Hartree, forces in eV/Å"),
        ({"forces": -1.0}, "forces have the other sign"),
        ({"forces": 0.52917721 / Hartree}, "forces are in Ha/Bohr, energies in eV"),
        ({"energy": 1 / Hartree, "forces": 0.52917721 / Hartree}, "in Hartree and forces in Ha"),
    ],
)
def test_units_are_told_by_comparison(rng, factors, message):
    frames = [labelled(atoms, **factors) for atoms in molecules(rng, 20)]
    found = [finding.text for finding in inspect_frames(frames).findings]
    assert any(message in text for text in found), found


@pytest.mark.parametrize(
    ("factor", "message"),
    [(-1.0, "compression positive"), (1 / GPa, "stresses are in GPa"), (1.0, None)],
)
def test_units_of_stress(factor, message):
    frames = [labelled(atoms, stress=factor) for atoms in crystals(20, strain=0.01)]
    found = [finding.text for finding in inspect_frames(frames).findings if finding.is_wrong]
    assert any(message in text for text in found) if message else not found, found


def test_page_and_exit_code(carbon_chain, tmp_path, images, capsys):
    page = tmp_path / "page"
    assert cli.main(["data", str(carbon_chain), "--output", str(page)]) == 0
    assert "nothing looks wrong" in capsys.readouterr().out
    picture = imread(page / "data.png")
    assert picture.shape[0] > 500
    assert np.unique(picture[..., 0]).size > 20
    images[3].calc.results["energy"] += 5.0
    images[3].info["charge"] = 7
    name = str(tmp_path / "<spoilt>.xyz")
    ase.io.write(name, images, format="extxyz")
    assert cli.main(["data", str(carbon_chain), name, "--output", str(page)]) == 1
    printed = capsys.readouterr().out
    assert "WRONG? 1 frames have charges that do not sum" in printed
    assert "; … 26 more" in printed  # of 29 copies
    text = (page / "index.html").read_text()
    assert "&lt;spoilt&gt;.xyz, frame 3" in text
    assert "<spoilt>" not in text
    assert cli.main(["data", str(tmp_path / "nothing.xyz")]) == 2


def test_keys_and_nothing(carbon_chain):
    lines: list[str] = []
    with pytest.warns(UserWarning, match="no structure has charges under the key 'none'"):
        found = inspect_files([carbon_chain], keys=KeysConfig(charges="none"), report=lines.append)
    assert found.table["charges (e)"] == "none"
    assert any(line.startswith("frames ") for line in lines)
    with pytest.raises(ValueError, match="no frames to inspect"):
        inspect_frames([])
