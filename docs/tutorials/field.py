# %% [markdown]
# # A slab in a field
#
# A film of rock salt, periodic along x and y and open along z, in an electric field. No vacuum is
# needed and no dipole correction: `pbc` alone decides where the electrostatics is open.
#
# How matter answers to a field is decided by the electrostatic head of a model
# ([which charges?](../which-charges.md)), and none of the shipped models has the right one for an
# insulator. So we train two small networks on the spot, which differ in the head alone. The data
# come with the repository (`models/rocksalts`); the models are far too briefly trained for use.

# %%
from pathlib import Path

import ase.io

import phicalc
from phicalc.training import config_from_dict, train

repository = Path(phicalc.__file__).parents[1]  # of a clone; the wheel has no training data
data = repository / "models" / "rocksalts" / "xtb_rocksalt_pbc.xyz.gz"
frames = [f for f in ase.io.read(data, ":") if set(f.symbols) == {"Na", "Cl"}]
ase.io.write("salt.extxyz", frames[::2])
print(f"{len(frames[::2])} cells of NaCl, labelled by GFN1-xTB")


def trained(head):
    """Train a small network with a head; return the folder of the model."""
    settings = {
        "output": head["name"],
        "data": {"train": ["salt.extxyz"], "split": "random", "valid_fraction": 0.1},
        "model": {
            "elements": ["Na", "Cl"],
            "cutoff": 4.5,
            "backbone": {"name": "nequip", "channels": 8, "l_max": 1, "correlation": 2},
            "head": head,
        },
        "loss": {"charges": {"weight": 2.0}},
        "batch_size": 1,
        "max_epochs": 4,
        "compile": False,
        "uncertainty": False,
    }
    return train(config_from_dict(settings), report=lambda line: None).model


models = {
    "qeq": trained({"name": "qeq"}),
    "acks2": trained({"name": "acks2", "formal_charges": "element"}),
}

# %% [markdown]
# ## Polarization
#
# Two films of different thickness in a weak field across them, in both directions. What they screen
# is 4πP/E, from 0 (vacuum) to 1 (a metal); for a wide film that is 1 − 1/ε.

# %%
import numpy as np
from ase.build import bulk

from phicalc import PhiCalculator
from phicalc.units import COULOMB_CONSTANT


def screened(model, cells, field=0.01):
    """Return 4πP/E of a film of NaCl, so many unit cells thick."""
    film = bulk("NaCl", "rocksalt", a=5.46, cubic=True).repeat((1, 1, cells))
    film.pbc = (True, True, False)  # open along z
    moments = []
    for direction in (1, -1):
        film.calc = PhiCalculator(model, dtype="float64", external_field=[0, 0, direction * field])
        moments.append(film.get_charges() @ film.positions[:, 2])
    polarization = (moments[0] - moments[1]) / (2 * film.get_volume())
    return 4 * np.pi * COULOMB_CONSTANT * polarization / field


for name, model in models.items():
    for cells in (2, 4, 8):
        share = screened(model, cells)
        print(f"{name:6s} {cells} cells: 4πP/E = {share:.3f}, as if ε∞ were {1 / (1 - share):6.2f}")

# %% [markdown]
# With charge equilibration (`qeq`) a film of twice the thickness looks like a material of twice the
# dielectric constant: charge runs from one surface to the other at no cost, as in a metal. With
# charges that flow along links (`acks2`) the answer tends to a constant of the material
# (experiment: 2.3; these networks saw a few dozen cells for seconds). Longer trainings of both:
# [which charges?](../which-charges.md)
#
# Fields along periodic axes, dielectric tensors and Born charges of crystals are refused where the
# charges cannot give them, and otherwise come from the same energy:

# %%
crystal = bulk("NaCl", "rocksalt", a=5.46)
for name, model in models.items():
    try:
        print(name, PhiCalculator(model).get_dielectric_tensor(crystal).diagonal().round(2))
    except Exception as error:
        print(f"{name}: {error}")
