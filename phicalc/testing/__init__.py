"""What every potential and every ASE calculator must fulfil, as checks that anyone can run.

`physics` asks for right numbers (finite differences, symmetries, supercells, charges), `results`
and `state` for what ASE expects of a calculator (types, errors, files; cache, copies, side
effects). In a shell::

    pytest --ase-calculator=package.module:Class --ase-elements=Cu,Au

runs all of them on any calculator; ``pytest --help`` lists the options.

>>> import phicalc.testing as testing
>>> evaluate = testing.from_calculator(calculator)          # doctest: +SKIP
>>> for check in testing.CONTRACT:                          # doctest: +SKIP
...     check(evaluate, atoms, tolerance=1e-8)
>>> for check in testing.ASE_CONTRACT:                      # doctest: +SKIP
...     check(make_calculator, atoms, tolerance=1e-8)

A check says nothing when all is well, raises AssertionError with the deviation when not, and
returns without a test where it does not apply (a stress without a periodic cell).
"""

from collections.abc import Callable

from phicalc.testing import results, state
from phicalc.testing.physics import (
    CONTRACT,
    Evaluate,
    Evaluation,
    check_forces,
    check_left_handed_cell,
    check_net_force,
    check_permutation,
    check_rotation,
    check_stress,
    check_supercell,
    check_total_charge,
    check_translation,
    from_calculator,
)

#: What ASE expects, each called as ``check(make_calculator, atoms, tolerance=…)``.
ASE_CONTRACT: tuple[Callable[..., None], ...] = (
    results.check_types,
    results.check_names,
    results.check_free_energy,
    results.check_sums,
    results.check_missing_properties,
    results.check_no_stress_of_molecules,
    results.check_one_atom,
    results.check_dipole,
    results.check_field,
    results.check_files,
    state.check_cache,
    state.check_no_calculation,
    state.check_changes,
    state.check_info,
    state.check_results_are_copies,
    state.check_atoms_are_untouched,
    state.check_process_is_untouched,
    state.check_deepcopy,
    state.check_class_is_untouched,
    state.check_several_structures,
    state.check_array_layout,
)

__all__ = [
    "ASE_CONTRACT",
    "CONTRACT",
    "Evaluate",
    "Evaluation",
    "check_forces",
    "check_left_handed_cell",
    "check_net_force",
    "check_permutation",
    "check_rotation",
    "check_stress",
    "check_supercell",
    "check_total_charge",
    "check_translation",
    "from_calculator",
]
