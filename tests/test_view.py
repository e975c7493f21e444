"""Views in 3D: what is in the file, and that a browser without a network draws it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from matplotlib.image import imread

from phicalc.cli import main
from phicalc.structures import water_box
from phicalc.view import view_part, write_view
from phicalc.view.page import spread

ROOT = Path(__file__).resolve().parents[1]
#: Of build/3Dmol-min.js in 3dmol 2.5.5 of npm.
BUNDLE = "f7cc78921ae72e7623e89cdd111434f58c2efddd2ffda1cd212644b406fb8016"


def with_charges(atoms: Atoms, charges: Any, energy: float = -1.5) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, energy=energy, charges=np.array(charges))
    return atoms


def movie(n_frames: int = 3) -> list[Atoms]:
    """Eight waters that move and become more polar."""
    frames = []
    for number in range(n_frames):
        atoms = water_box(8)
        atoms.rattle(0.02 * number, seed=number)
        oxygen = atoms.symbols == "O"
        with_charges(atoms, np.where(oxygen, -0.8, 0.4) * (1 + 0.1 * number), -10.0 - number)
        atoms.info["time_fs"] = 500.0 * number
        frames.append(atoms)
    return frames


def data_of(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


def test_the_bundle_is_the_published_one():
    bundle = files("phicalc.view").joinpath("bundle/3Dmol-min.js").read_bytes()
    assert hashlib.sha256(bundle).hexdigest() == BUNDLE
    assert b"</script" not in bundle.lower()


def test_frames_hold_charges_energy_time_and_cell(tmp_path):
    frames = movie()
    view = write_view(frames, tmp_path / "new" / "view.html")
    first, second, third = data_of(view.path.read_text(encoding="utf-8"))
    assert first["symbols"] == frames[0].get_chemical_symbols()
    assert "symbols" not in second  # those before
    np.testing.assert_allclose(unpacked(second["charges"]), frames[1].get_charges(), rtol=1e-6)
    np.testing.assert_allclose(third["cell"], frames[2].cell, atol=1e-4)
    assert third["caption"].endswith(" · 1.000 ps · −12.0000 eV")
    assert view.n_frames == 3
    assert view.charges == pytest.approx((-0.96, 0.48))


def test_temperature_is_told():
    atoms = with_charges(molecule("H2O"), [-0.8, 0.4, 0.4])
    atoms.set_momenta(np.ones((3, 3)))
    [record] = data_of(view_part([atoms]))
    assert record["caption"] == f"H2O (3 atoms) · −1.5000 eV · {atoms.get_temperature():.0f} K"


def test_molecules_are_whole_and_inside():
    atoms = water_box(8)
    lengths = atoms.cell.lengths()
    torn = atoms.copy()
    torn.positions += 7.3 * lengths
    torn.wrap()
    torn.positions[1] -= lengths
    for frames in ([torn], [atoms, torn]):
        positions = unpacked(data_of(view_part(frames))[-1]["positions"]).reshape(-1, 3)
        oxygen = positions[atoms.symbols == "O"]
        hydrogen = positions[atoms.symbols == "H"].reshape(8, 2, 3)
        assert np.linalg.norm(hydrogen - oxygen[:, None], axis=-1).max() < 1.1
        assert oxygen.min() > -1e-4
        assert (oxygen < lengths).all()


def test_atoms_of_a_crystal_are_inside_and_not_moved_by_rounding():
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    shifted = salt.copy()
    shifted.positions -= 1e-9
    positions = unpacked(data_of(view_part([shifted]))[0]["positions"]).reshape(-1, 3)
    np.testing.assert_allclose(positions, salt.positions, atol=1e-5)


def test_a_slab_shows_two_vectors_and_a_molecule_no_cell():
    slab = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    slab.pbc = (True, True, False)
    record, other = data_of(view_part([slab, molecule("H2O", vacuum=5)]))
    assert record["cell"] == [[5.6, 0, 0], [0, 5.6, 0], [0, 0, 0]]
    assert "cell" not in other


def test_long_trajectories_are_thinned():
    frames = [Atoms("H", [[0.0, 0.0, number]]) for number in range(50)]
    shown = spread(frames, 10)
    assert len(shown) == 10
    assert shown[0] is frames[0]
    assert shown[-1] is frames[-1]


@pytest.mark.parametrize(("frames", "most"), [([], 10), ([Atoms("H")], 0)])
def test_nothing_to_show(tmp_path, frames, most):
    with pytest.raises(ValueError, match="1 or more frames"):
        write_view(frames, tmp_path / "view.html", most=most)


def test_the_verb(tmp_path, capsys):
    write(tmp_path / "movie.extxyz", movie(5))
    output = tmp_path / "view.html"
    assert main(["view", str(tmp_path / "movie.extxyz"), "--frames", "4", "--output",
                 str(output)]) == 0  # fmt: skip
    assert "4 of 5 frames, charges -1.120 … +0.560 e" in capsys.readouterr().out
    assert len(data_of(output.read_text(encoding="utf-8"))) == 4


def test_a_file_without_charges(tmp_path, capsys):
    write(tmp_path / "water.xyz", molecule("H2O"))
    assert main(["view", str(tmp_path / "water.xyz"), "--output", str(tmp_path / "v.html")]) == 0
    assert "1 of 1 frames, no charges: colored by element" in capsys.readouterr().out


@pytest.fixture
def browser(monkeypatch):
    """Open a page in a headless browser."""
    monkeypatch.syspath_prepend(str(ROOT))
    from tools.browser import Browser, find_browser

    path = find_browser()
    if path is None:
        pytest.skip("no browser (Debian, Ubuntu: apt-get install chromium)")
    with Browser(path) as opened:
        yield opened


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_without_network_draws_it(browser, tmp_path):
    view = write_view([*movie(), with_charges(molecule("H2O"), [-0.8, 0.4, 0.4])],
                      tmp_path / "view.html")  # fmt: skip
    browser.open(view.path.as_uri(), width=800, height=700)
    atoms = stage(browser, tmp_path)
    assert browser.complaints == []
    assert len(np.unique(atoms.reshape(-1, 3).round(1), axis=0)) > 20  # shades of balls, not blank
    assert browser.run("document.querySelector('.view output').textContent").startswith("1 of 4")
    browser.run("document.querySelector('.view select').value = 'elements'")
    browser.run("document.querySelector('.view select').dispatchEvent(new Event('change'))")
    assert np.abs(stage(browser, tmp_path) - atoms).max() > 0.3  # red oxygen in place of dark blue
    browser.run("document.querySelector('.view button').click()")
    wait = "new Promise((done) => setTimeout(done, 2000))"
    browser.run(wait)
    browser.run("document.querySelector('.view button').click()")
    assert browser.complaints == []


@pytest.mark.browser
@pytest.mark.slow
def test_a_page_that_wants_the_network_complains(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<script src="https://example.org/x.js"></script><script>nothing()</script>')
    browser.open(page.as_uri(), width=800)
    said = " ".join(browser.complaints)
    assert "ERR_NAME_NOT_RESOLVED" in said
    assert "nothing is not defined" in said


def stage(browser: Any, folder: Path) -> np.ndarray:
    """Colors of what the view shows now, (height, width, 3)."""
    box = browser.run(
        "(({x, y, width, height}) => [x, y, width, height].map(Math.round))"
        "(document.querySelector('.view .stage').getBoundingClientRect())"
    )
    x, y, width, height = box
    picture = imread(browser.picture(folder / "stage.png"))[..., :3]
    return picture[y + 2 : y + height - 2, x + 2 : x + width - 2]
