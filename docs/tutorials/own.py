# %% [markdown]
# # Your own potential
#
# No model knows your molecule? Make one. `phicalc improve` goes all the way: it explores, labels with
# a reference calculator what the model knows least, trains, and validates, round after round. Here it
# learns methanol from GFN2-xTB (`pip install "phicalc[label]"`), with a budget of a minute; a useful
# model takes some hundred labels.

# %%
import ase.io
from ase.build import molecule

ase.io.write("methanol.extxyz", molecule("CH3OH"))

# %% [markdown]
# ## One command
#
# In the shell: `phicalc improve methanol.extxyz output=methanol budget.max_labels=60`. The same from
# Python, with a small network and few steps so that this page builds quickly:

# %%
from phicalc.improvement import config_of, improve

settings = config_of(
    ["methanol.extxyz"],
    [
        "output=methanol",
        "budget.max_labels=60",
        "first_labels=40",
        "round_labels=20",
        "steps=250",
        "workers=1",
        "explore={md: {temperatures: [300, 600], frames: 15, interval: 20}, torsions: {points: 12}}",
        "train.model.backbone={name: nequip, channels: 16, l_max: 1, correlation: 2}",
        "train.compile=false",
        "validate.only=[symmetry, torsions]",
    ],
)
lines = []
result = improve(settings, report=lines.append)
print("\n".join(lines[-12:]))

# %% [markdown]
# What the rounds found, and what is left on disk: the model with its certificate, `history.html` with
# errors and pictures, and every label with its origin. Start the same command again after whatever
# stopped it, or with a larger budget, and it goes on. [All settings](../improve.md)
#
# The checks were told to be only two here. Without `validate.only` a run asks everything that
# applies to the chemistry of its structures, and needs more labels to pass.
#
# ## Use it

# %%
from phicalc import PhiCalculator
from phicalc.relax import relax

atoms = molecule("CH3OH")
atoms.calc = PhiCalculator(result.model, dtype="float64")
found = relax(atoms, fmax=0.01)
uncertainty = atoms.calc.get_uncertainty(atoms)
print(f"{found.energy:.3f} ± {uncertainty.energy_std:.3f} eV; C–O {atoms.get_distance(0, 1):.3f} Å")
print(f"forces are known to {uncertainty.forces_std.max():.3f} eV/Å")

# %% [markdown]
# Some thirty labels are few, and the error bars say so. Beside the reference:

# %%
from phicalc.labelling import CalculatorSpec

reference = CalculatorSpec("gfn2-xtb")
copy = molecule("CH3OH")
copy.info["charge"] = 0
copy.calc = reference.make(reference.prepare(copy))
xtb = relax(copy, fmax=0.01)
print(f"GFN2-xTB: {xtb.energy:.3f} eV; C–O {copy.get_distance(0, 1):.3f} Å")

# %% [markdown]
# Error bars are those against the reference, not against nature
# ([how far to trust them](../uncertainty.md)).
#
# ## With labels of your own
#
# Your own DFT data, in extended XYZ or anything ASE reads: `phicalc data mine.extxyz` looks for
# mistakes, `phicalc train config.yaml` trains ([training](../use/training.md)). Any ASE calculator
# can label: `calculator.name=package.module:Class`.
