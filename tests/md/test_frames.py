"""Trajectories that can be read: whatever the structure carries, its run comes back."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.io.proteindatabank import read_proteindatabank

from phicalc.md import MDConfig, MDError, run_md
from phicalc.md.output import ExtxyzWriter, FrameFormat, frame_text

from .systems import cluster

PDB = """\
HETATM    1 AR                 0.000   0.000   0.000  1.00  0.00          AR
HETATM    2 AR                 3.000   1.000   0.000  1.00  0.00          AR
HETATM    3 AR                 0.000   4.000   1.000  1.00  0.00          AR
HETATM    4 AR                 0.000   1.000   5.000  1.00  0.00          AR
HETATM    5 AR                 6.000   1.000   2.000  1.00  0.00          AR
HETATM    6 AR                 6.000   6.000   6.000  1.00  0.00          AR
END
"""


def from_pdb(path) -> Atoms:
    """Return atoms whose residues have no names."""
    path.write_text(PDB)
    return read_proteindatabank(path)


#: What structures carry: kind, name, value, and where it is found after the run.
CARRIED = {
    "names of residues with blanks": ("arrays", "residuenames", np.array(["A B", *"CDEFG"]), None),
    "no names of residues": ("arrays", "residuenames", np.array([""] * 6), None),
    "charge of each atom": ("arrays", "charge", np.arange(6.0), "input_charge"),
    "tensors of atoms": ("arrays", "tensor", np.zeros((6, 3, 3)), None),
    "objects": ("arrays", "label", np.array([1, "a", None, 2, 3, 4], dtype=object), None),
    "forces": ("arrays", "forces", np.ones((6, 3)), "input_forces"),
    "charges": ("arrays", "charges", np.ones(6), "input_charges"),
    "line breaks": ("info", "comment", "one\ntwo", "comment"),
    "quotes and equals": ("info", "comment", 'a="b c" d', "comment"),
    "nested": ("info", "nested", {"a": {"b": [1, "x=y\n"]}}, "nested"),
    "not a number": ("info", "x", float("nan"), "x"),
    "energy": ("info", "energy", -3.0, "input_energy"),
    "stress": ("info", "stress", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "input_stress"),
    "number as a key": ("info", 7, "seven", "7"),
    "an object": ("info", "x", object(), None),
}


@pytest.mark.parametrize("case", CARRIED)
def test_runs_can_be_read_whatever_the_atoms_carry(case, tmp_path):
    kind, name, value, expected = CARRIED[case]
    atoms = cluster()
    getattr(atoms, kind)[name] = value
    config = MDConfig(timestep=2.0, steps=4, trajectory_interval=2)
    if expected == name:
        result = run_md(atoms, config, tmp_path)
    else:
        with pytest.warns(UserWarning, match="will not hold every entry") as told:
            result = run_md(atoms, config, tmp_path)
        assert len(told) == 1
    frames = [*ase.io.read(result.trajectory, ":"), ase.io.read(result.final)]
    assert [frame.info["step"] for frame in frames] == [0, 2, 4, 4]
    np.testing.assert_allclose(frames[-1].positions, atoms.positions, atol=1e-7)
    np.testing.assert_allclose(frames[-1].get_forces(), atoms.get_forces(), atol=1e-7)
    assert frames[-1].get_potential_energy() == pytest.approx(atoms.get_potential_energy())
    if expected is not None:
        for frame in frames:
            np.testing.assert_equal(getattr(frame, kind)[expected], value)


@pytest.mark.parametrize("trajectory_format", ["extxyz", "traj"])
def test_structures_of_pdb_files_run(trajectory_format, tmp_path):
    atoms = from_pdb(tmp_path / "x.pdb")
    atoms.calc = cluster().calc
    atoms.positions = cluster().positions
    config = MDConfig(timestep=2.0, steps=2, trajectory_format=trajectory_format)
    with pytest.warns(UserWarning, match="residuenames.*is dropped"):
        result = run_md(atoms, config, tmp_path / "run")
    for path in (result.trajectory, result.final):
        np.testing.assert_allclose(ase.io.read(path).positions, atoms.positions, atol=1e-7)


def test_the_last_good_state_can_be_read_too(tmp_path):
    atoms = cluster()
    atoms.arrays["residuenames"] = np.array([""] * 6)
    with (
        pytest.warns(UserWarning, match="residuenames"),
        pytest.raises(MDError, match="max_force"),
    ):
        run_md(atoms, MDConfig(timestep=2.0, steps=60, max_force=0.1), tmp_path)
    assert len(ase.io.read(tmp_path / "last_good.extxyz")) == 6


def test_a_first_frame_that_comes_back_changed_ends_the_run_before_its_first_step(
    tmp_path, monkeypatch
):
    def append_shifted(writer, frame):
        frame.positions += 1e-6
        writer._file.append(frame_text(frame))

    monkeypatch.setattr(ExtxyzWriter, "append", append_shifted)
    atoms = cluster()
    with pytest.raises(MDError, match="first frame of .* does not hold the structure: positions"):
        run_md(atoms, MDConfig(steps=5), tmp_path)
    assert atoms.calc.calls == 1


def test_a_first_frame_that_cannot_be_read_is_an_error(tmp_path):
    frame = cluster()
    (tmp_path / "x").write_text("6\n\n")
    with pytest.raises(ValueError, match="cannot be read back"):
        FrameFormat(frame, "extxyz").check(tmp_path / "x", frame)
