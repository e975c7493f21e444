"""Physical constants in phicalc's units: eV, Å, elementary charge, amu.

Every constant of the package lives here and is derived from CODATA through `scipy.constants`.
"""

import math

from scipy import constants

#: k_e = e²/(4π ε₀) in eV Å / e²: the energy of two unit charges at 1 Å (14.3996…).
COULOMB_CONSTANT = constants.e / (4 * math.pi * constants.epsilon_0) / constants.angstrom

#: 1 eV/Å³ in GPa (160.2176…).
GPA_PER_EV_PER_CUBIC_ANGSTROM = constants.e / constants.angstrom**3 / constants.giga

#: 1 amu/Å³ in g/cm³ (1.6605…).
GRAM_PER_CC_PER_AMU_PER_CUBIC_ANGSTROM = (
    constants.atomic_mass * constants.kilo / (constants.angstrom / constants.centi) ** 3
)
