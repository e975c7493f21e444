"""The record of a domain in sentences, for people."""

from collections.abc import Iterator

from phicalc.domain.record import Domain

#: Longer lists are cut.
_MOST_PAIRS, _MOST_ENVIRONMENTS = 10, 12


def describe_domain(domain: Domain) -> dict[str, str]:
    """Return what a model knows, and what it does not, as lines of text by name.

    Facts that nobody knows are left out; a record without any gives no line.
    """
    lines = {
        "trained on": "; ".join(_covered(domain)),
        "not trained on": ", ".join(_missing(domain)),
        "nearest pairs": _pairs(domain.nearest_distances or {}),
        "environments": _environments(domain.environments or ()),
        "largest labels": ", ".join(_largest(domain)),
    }
    return {name: text for name, text in lines.items() if text}


def _covered(domain: Domain) -> Iterator[str]:
    """Yield phrases about the structures."""
    if domain.frames is not None:
        elements = f" of {' '.join(domain.elements)}" if domain.elements else ""
        yield f"{domain.frames} {domain.source or 'frames'}{elements}"
    if kinds := _kinds(domain):
        yield kinds
    if domain.densities is not None:
        yield f"density {_range(domain.densities, 2)} g/cm³"
    if domain.temperatures is not None:
        yield f"{_range(domain.temperatures, 0)} K"
    if domain.charges is not None:
        yield f"total charge {_range(domain.charges, None)} e"
    if domain.closed_shell:
        yield "closed shells"
    if domain.stress:
        yield "with stress"


def _kinds(domain: Domain) -> str:
    """Name the boundary conditions."""
    names = {
        (True, True): "periodic and isolated structures",
        (True, False): "periodic structures",
        (True, None): "periodic structures",
        (False, True): "isolated structures",
        (False, None): "isolated structures",
    }
    return "" if domain.periodic is None else names.get((domain.periodic, domain.isolated), "")


def _missing(domain: Domain) -> Iterator[str]:
    """Yield kinds of structures and quantities without training data."""
    if domain.charges == (0.0, 0.0):
        yield "structures with a total charge"
    if domain.closed_shell:
        yield "radicals"
    if domain.periodic is False:
        yield "crystals and liquids"
    if domain.isolated is False:
        yield "isolated molecules and clusters"
    if domain.periodic and domain.stress is False:
        yield "stress (pressure, cells)"


def _largest(domain: Domain) -> Iterator[str]:
    """Yield the largest labels."""
    if domain.largest_force is not None:
        yield f"force {domain.largest_force:.3g} eV/Å"
    if domain.largest_charge is not None:
        yield f"charge of an atom {domain.largest_charge:.2f} e"


def _pairs(distances: dict[str, float]) -> str:
    """List the pairs with the smallest distances."""
    chosen = sorted(distances.items(), key=lambda pair: pair[1])
    listed = ", ".join(f"{pair.replace('-', '–')} {d:.2f}" for pair, d in chosen[:_MOST_PAIRS])
    rest = f" and {len(chosen) - _MOST_PAIRS} more" if len(chosen) > _MOST_PAIRS else ""
    return f"{listed} Å{rest}" if listed else ""


def _environments(names: tuple[str, ...]) -> str:
    """List environments of atoms, or count them if there are many."""
    if len(names) <= _MOST_ENVIRONMENTS:
        return ", ".join(names)
    return f"{len(names)} kinds of bonded atoms, such as {', '.join(names[:4])}"


def _range(limits: tuple[float, float], digits: int | None) -> str:
    """Write a range; one number where both ends read the same."""
    low, high = (f"{x:g}" if digits is None else f"{x:.{digits}f}" for x in limits)
    return low if low == high else f"{low} to {high}"
