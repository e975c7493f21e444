"""The picture of a run: its numbers are those of the files, its labels have units."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from matplotlib.figure import Figure

from phicalc.md import MDConfig, analyse_run, make_report, run_md
from phicalc.structures import water_box

TIMES = np.linspace(0, 2, 41)


def write_run(folder, **settings):
    """Write a run of 64 waters by hand: 310 K, a drift of 0.5 meV/atom/ps, charges −0.8 and 0.4."""
    config = MDConfig(**settings)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    columns = {
        "step": np.arange(41),
        "time_ps": TIMES,
        "temperature_K": np.where(TIMES < 1, 100.0, 310.0),
        "potential_energy_eV": -1000 + 0 * TIMES,
        "kinetic_energy_eV": 0 * TIMES,
        "conserved_energy_eV": -1000 + 192 * 0.5e-3 * np.maximum(TIMES, 0.5),
        "wall_time_s": TIMES,
        "density_g_cm3": np.where(TIMES < 1, 2.0, 0.95),
        "pressure_bar": np.where(TIMES < 1, 9000.0, -2000.0),
    }
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(repr, map(float, row))) for row in rows)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    frames = []
    for seed in range(4):
        frame = water_box(64)
        frame.rattle(0.1, seed=seed)
        if seed < 2:
            frame.positions *= 0.8  # the first half must not enter
        charges = np.where(frame.symbols == "O", -0.8, 0.4)
        frame.info["time_fs"] = 500.0 * seed
        frame.calc = SinglePointCalculator(frame, energy=0.0, charges=charges)
        frames.append(frame)
    ase.io.write(folder / "trajectory.extxyz", frames)


@pytest.fixture
def figures(monkeypatch):
    """Figures as they are saved."""
    saved = []
    save = Figure.savefig

    def keep(figure, *args, **kwargs):
        saved.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def test_four_panels_show_what_the_files_say(tmp_path, figures):
    write_run(tmp_path)
    path = make_report(tmp_path)
    assert path == tmp_path / "report.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    titles = {axes.get_title() for axes in figure.axes}
    assert titles - {""} == {
        "temperature: 310 K",
        "conserved energy: drift +0.500 ± 0.000 meV/atom/ps",
        "O–O pair distribution: peak 3.15 Å, 6 within 3.76 Å",
        "mean charges: H +0.40, O −0.80 e",
    }
    assert figure.get_suptitle() == "64 H₂O (192 atoms) · NVT, 300 K · 2 ps"


def test_every_axis_has_a_label_with_its_unit(tmp_path, figures):
    write_run(tmp_path, ensemble="npt", pressure=1.0)
    make_report(tmp_path, title="mine")
    (figure,) = figures
    labels = {axes.get_ylabel() for axes in figure.axes} | {a.get_xlabel() for a in figure.axes}
    assert labels == {
        "time (ps)", "temperature (K)", "change (meV/atom)", "density (g/cm³)", "pressure (kbar)",
        "O–O distance (Å)", "g(r)", "neighbours within r", "charge (e)", "density (1/e)", "",
    }  # fmt: skip
    titles = [axes.get_title() for axes in figure.axes]
    assert "density: 0.95 g/cm³" in titles
    assert "pressure: −2 kbar" in titles
    assert figure.get_suptitle() == "mine"


def test_texts_do_not_overlap(tmp_path, figures):
    write_run(tmp_path, ensemble="npt")
    make_report(tmp_path)
    (figure,) = figures
    figure.draw_without_rendering()
    texts = [figure._suptitle]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
    texts = [text for text in texts if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
        for other, text in zip(boxes[:i], texts[:i], strict=True):
            assert not box.overlaps(other), f"{texts[i].get_text()} over {text.get_text()}"


@pytest.mark.parametrize(
    "atoms", [bulk("Cu"), Atoms("Cu"), Atoms("Cu2", [[0, 0, 0], [2.3, 0, 0]])], ids=str
)
def test_runs_without_charges_or_pairs_have_a_picture_too(atoms, tmp_path):
    atoms.calc = EMT()
    run_md(atoms, MDConfig(steps=1, timestep=1.0), tmp_path)
    assert make_report(tmp_path).stat().st_size > 10_000


def test_pair_can_be_chosen(tmp_path, figures):
    write_run(tmp_path)
    make_report(tmp_path, pair=("O", "H"))
    assert "O–H distance (Å)" in {axes.get_xlabel() for axes in figures[0].axes}


def test_analysis_holds_every_quantity_with_unit_and_error(tmp_path, figures):
    write_run(tmp_path)
    found = analyse_run(tmp_path, output=tmp_path / "new", discard=0.5)
    rows = {line.quantity: line for line in found.rows}
    assert rows["temperature"].value == pytest.approx(310)
    assert rows["pressure"].value == pytest.approx(-2000)
    assert rows["drift of the conserved energy"].value == pytest.approx(0.5)
    assert rows["O–H coordination"].value == pytest.approx(2)
    assert rows["charge of O"].value == pytest.approx(-0.8)
    for name in ("diffusion", "vibrational density of states", "dielectric constant"):
        assert rows[name].value is None
        assert "too few" in rows[name].note
    record = json.loads(found.table.read_text())
    assert record["title"] == "64 H₂O (192 atoms) · NVT, 300 K · 2 ps"
    assert len(record["quantities"]) == len(found.rows)
    page = found.page.read_text()
    assert "data:image/png;base64," in page
    assert "not applicable: 2 frames are too few" in page
    assert all('src="http' not in line for line in page.splitlines())
    assert page.count('"positions": ') == 4  # all frames in 3D, the discarded ones too
    titles = {axes.get_title() for axes in figures[0].axes}
    assert "diffusion: not applicable" in titles


@pytest.mark.parametrize(
    ("settings", "message"), [({"discard": 1.0}, "discard must be"), ({"stride": 0}, "stride must")]
)
def test_senseless_analyses_are_refused(settings, message, tmp_path):
    write_run(tmp_path)
    with pytest.raises(ValueError, match=message):
        analyse_run(tmp_path, **settings)


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run of phicalc: it has no config.json"):
        make_report(tmp_path)
