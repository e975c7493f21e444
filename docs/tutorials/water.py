# %% [markdown]
# # First hour with water
#
# A box of water, from a single number to a short trajectory. You need phicalc and nothing else
# ([install](../install.md)); every block below ran when this page was built, and what it printed
# stands under it.

# %% [markdown]
# ## One structure
#
# `PhiCalculator` is an ordinary ASE calculator: attach it to atoms, then ask the atoms. `water_box`
# puts molecules on a lattice and turns them at random.

# %%
from phicalc import PhiCalculator
from phicalc.structures import water_box

atoms = water_box(64)
atoms.calc = PhiCalculator("water-small")

print(f"energy   {atoms.get_potential_energy():.3f} eV for {len(atoms)} atoms")
print(f"forces   up to {abs(atoms.get_forces()).max():.2f} eV/Å")
print(f"charges  {atoms.get_charges()[:3].round(3)} e (O, H, H)")

# %% [markdown]
# The energy is a sum of named terms, and the charges sum to the total charge:

# %%
for name, value in atoms.calc.energy_terms.items():
    print(f"{name:15s} {value:12.3f} eV")
print(f"sum of charges {atoms.get_charges().sum():.1e} e")

# %% [markdown]
# Nobody labelled these charges: the model learned them from energies, forces and the dipoles of
# molecules and clusters. They are what makes distant molecules feel each other.
#
# ## What the model is for
#
# Ask before you trust it. The card says what the training data covered:

# %%
from phicalc.info import describe_model

card = describe_model("water-small")
for name in ("level of theory", "trained on", "not trained on", "limit 1"):
    print(f"{name}: {card[name]}")

# %% [markdown]
# Ions are not in it. Give it something else and it says so: a water molecule that has lost an
# electron, for example.

# %%
from ase.build import molecule

ion = molecule("H2O", vacuum=5)
ion.info["charge"] = 1.0
ion.calc = PhiCalculator("water-small")
print(f"{ion.get_potential_energy():.3f} eV: a number, and a warning beside it")

# %% [markdown]
# `PhiCalculator(..., strict=True)` makes such warnings errors.
#
# ## Dynamics
#
# The box is a lattice of molecules that nobody would find in a glass of water. A few steps downhill
# take out the worst, and a strong thermostat the rest: 64 molecules, 300 K, constant volume.

# %%
from phicalc.md import MDConfig, read_log, run_md
from phicalc.relax import relax

relax(atoms, fmax=0.3, steps=30)

config = MDConfig(
    ensemble="nvt",
    thermostat="langevin",
    temperature=300,  # K
    timestep=0.5,  # fs: hydrogen is light
    thermostat_time=50,  # fs: strong; 500 for dynamical properties
    steps=700,
    log_interval=5,
    trajectory_interval=5,
)
result = run_md(atoms, config, "run", progress=False)
log = read_log(result.log)
late = log["time_ps"] > 0.15
print(f"{log['time_ps'][-1]:.2f} ps, {log['temperature_K'][late].mean():.0f} K in the second half")

# %% [markdown]
# The same from the shell: `phicalc md box.extxyz --model water-small --steps 700 --thermostat-time 50
# --output run`. A run that was stopped, by whatever, goes on with `--restart` and ends
# exactly where it would have ended.
#
# ## Look at it
#
# Is the conserved energy conserved? Where are the nearest neighbors of an oxygen? How much do charges
# vary from molecule to molecule?

# %%
import ase.io
import matplotlib.pyplot as plt
import numpy as np

from phicalc.analysis import pair_distribution

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2))
drift = log["conserved_energy_eV"] - log["conserved_energy_eV"][0]
left.plot(log["time_ps"], 1000 * drift / len(atoms), label="conserved energy")
potential = log["potential_energy_eV"] - log["potential_energy_eV"][0]
left.plot(log["time_ps"], 1000 * potential / len(atoms), "--", label="potential energy")
left.set_xlabel("time (ps)")
left.set_ylabel("change (meV/atom)")
left.legend(frameon=False)

frames = ase.io.read(result.trajectory, "70:")
found = pair_distribution(frames, ("O", "O"))
middle.plot(found.radii, found.values)
middle.axhline(1, color="grey", lw=0.5)
middle.set_xlabel("O–O distance (Å)")
middle.set_ylabel("g")

charges = np.array([frame.get_charges() for frame in frames])
for symbol, pattern in (("O", "//"), ("H", "..")):
    chosen = charges[:, atoms.symbols == symbol].ravel()
    right.hist(chosen, bins=40, density=True, alpha=0.6, hatch=pattern, label=symbol)
right.set_xlabel("charge (e)")
right.set_yticks([])
right.legend(frameon=False, loc="upper center")
figure.tight_layout()
peak, minimum, neighbors = found.first_shell()
print(f"nearest oxygens at {peak:.2f} Å, {neighbors:.1f} of them up to {minimum:.2f} Å")

# %% [markdown]
# And the trajectory itself: press play, turn it, point at an atom to see its charge.

# %%
from phicalc.view import write_view

movie = ase.io.read(result.trajectory, ":")
write_view(movie, "view.html", title="64 waters at 300 K")

# %% [markdown]
# `view.html` is one file that needs no network; in the shell `phicalc view run` writes it.
#
# A third of a picosecond shows that things work; it is far too short for averages. For those run
# longer (`steps=200_000`) and use `phicalc analyse run`, which writes temperature, drift, g(r),
# charges, diffusion and spectra with statistical errors onto one page, with the same view in it.
#
# ## Where to go from here
#
# - [Your molecule](molecule.md), [your crystal](crystal.md)
# - [Choose a model](../choose.md), or train [your own](own.md)
# - [Molecular dynamics](../use/dynamics.md): ensembles, ramps, restarts
