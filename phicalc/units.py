"""Physical constants in phicalc's units: eV, Å, elementary charge, amu.

Every constant that the package converts with lives here and is derived from CODATA 2022. ASE's
dynamics convert times, pressures and temperatures with `ase.units`, CODATA 2014, and so does
`phicalc.md`, which sets them: k_B differs by 3.4e-7 of itself there, the others by less.
"""

import math
from typing import NamedTuple


class _Constants(NamedTuple):
    """CODATA 2022 in SI units, and prefixes, under the names of `scipy.constants`.

    Written out, so that numbers do not depend on the version of scipy, whose import takes long.
    """

    e: float = 1.602176634e-19
    """C."""
    epsilon_0: float = 8.8541878188e-12
    """F/m."""
    atomic_mass: float = 1.66053906892e-27
    """kg."""
    c: float = 299792458.0
    """m/s."""
    N_A: float = 6.02214076e23
    """1/mol."""
    h: float = 6.62607015e-34
    """J s."""
    hbar: float = 6.62607015e-34 / (2 * math.pi)
    """J s."""
    k: float = 1.380649e-23
    """J/K."""
    calorie: float = 4.184
    """J."""
    angstrom: float = 1e-10
    giga: float = 1e9
    kilo: float = 1e3
    centi: float = 1e-2
    femto: float = 1e-15


constants = _Constants()

#: k_e = e²/(4π ε₀) in eV Å / e²: the energy of two unit charges at 1 Å (14.3996…).
COULOMB_CONSTANT = constants.e / (4 * math.pi * constants.epsilon_0) / constants.angstrom

#: 1 eV/Å³ in GPa (160.2176…).
GPA_PER_EV_PER_CUBIC_ANGSTROM = constants.e / constants.angstrom**3 / constants.giga

#: 1 amu/Å³ in g/cm³ (1.6605…).
GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM = (
    constants.atomic_mass * constants.kilo / (constants.angstrom / constants.centi) ** 3
)

#: 1/fs in cm⁻¹ (33356.4…): the wavenumber of light that swings once in 1 fs.
WAVENUMBER_PER_INVERSE_FS = constants.centi / constants.c / constants.femto

#: 1 Å² cm⁻¹, a cross section integrated over wavenumbers, in km/mol (602.2…).
KM_PER_MOL_PER_SQUARE_ANGSTROM_PER_CM = (
    constants.N_A * constants.angstrom**2 / constants.centi / constants.kilo
)

#: Infrared intensity in km/mol of a mode with (∂μ/∂Q)² = 1 e²/amu (974.88…): N_A π k_e / 3 c².
KM_PER_MOL_PER_SQUARE_CHARGE_PER_AMU = (
    constants.N_A
    * constants.e**2
    / (12 * constants.epsilon_0 * constants.c**2 * constants.atomic_mass)
    / constants.kilo
)

#: ħ in √(eV amu) Å (0.06465…): times the square root of a force constant in eV/(Å² amu), an energy.
PLANCK = constants.hbar / constants.angstrom / math.sqrt(constants.e * constants.atomic_mass)

#: 1 cm⁻¹ in eV (1.2398…e-4).
EV_PER_WAVENUMBER = constants.h * constants.c / constants.centi / constants.e

#: k_B in eV/K (8.6173…e-5).
BOLTZMANN_CONSTANT = constants.k / constants.e

#: 1 bar in eV/Å³ (6.2415…e-7).
EV_PER_CUBIC_ANGSTROM_PER_BAR = 1e5 * constants.angstrom**3 / constants.e

#: Speed of light in Å/fs (2997.9…).
SPEED_OF_LIGHT = constants.c * constants.femto / constants.angstrom

#: 1 THz in cm⁻¹ (33.356…).
WAVENUMBER_PER_THZ = WAVENUMBER_PER_INVERSE_FS / constants.kilo

#: 1 Å²/fs in 1e-9 m²/s, the usual unit of diffusion coefficients (1e4).
NANO_SI_PER_SQUARE_ANGSTROM_PER_FS = constants.angstrom**2 / constants.femto * constants.giga

#: 1 hartree in eV (27.211…): 4.3597447222060e-18 J in CODATA 2022.
EV_PER_HARTREE = 4.3597447222060e-18 / constants.e

#: 1 bohr in Å: CODATA 2022.
BOHR = 0.529177210544

#: 1 kcal/mol in eV (0.043364…).
EV_PER_KCAL_PER_MOL = constants.kilo * constants.calorie / constants.N_A / constants.e

#: 1 hartree/bohr, the atomic unit of force, in eV/Å (51.422…).
ATOMIC_FORCE = EV_PER_HARTREE / BOHR
