"""Named sizes of the network, for configurations: ``backbone: medium``.

They are points of the curve of error against cost (``make bench ARGS="-k error_cost"``, table in
``tests/benchmarks/RESULTS.md``), with walls between atoms that are closer than the data have them.
"""

from collections.abc import Mapping
from typing import Any

from phicalc.backbone.protocol import BACKBONES
from phicalc.plugins import IMPORT_PATH, is_foreign
from phicalc.schema.words import hint

_WALLS = {"inner_envelope": True, "density_limit": 5.0}
#: Options of `phicalc.backbone.NequIPSettings` by name of the size.
SIZES: dict[str, dict[str, Any]] = {
    "small": {"channels": 16, **_WALLS},
    "medium": {"channels": 64, "edge_channels": 16, **_WALLS},
    "large": {"channels": 64, **_WALLS},
}


def with_size(section: Any) -> Any:
    """Return the section ``backbone`` of a configuration with the options of a size written out.

    ``medium`` and ``{name: medium, l_max: 1}`` become sections of ``nequip``; options that stand
    beside the name go before those of the size. Every other section is returned as it is.

    Raises
    ------
    ValueError
        For a name that is neither a size nor a backbone nor an import path.
    """
    given = dict(section) if isinstance(section, Mapping) else {"name": section}
    name = given.get("name")
    if not isinstance(name, str) or name in BACKBONES or is_foreign(name):
        return section
    if name not in SIZES:
        raise ValueError(
            f"unknown backbone {name!r}{hint(name, [*SIZES, *BACKBONES]) or '.'} Sizes: "
            f"{', '.join(SIZES)}; networks: {', '.join(BACKBONES)}; write the import path "
            f"{IMPORT_PATH!r} for any other"
        )
    return {**SIZES[name], **given, "name": "nequip"}
