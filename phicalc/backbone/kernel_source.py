"""C++ of the sum over neighbours, written term by term from the coupling coefficients."""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from phicalc.nn import MAX_DEGREE, block, coupling, couplings

#: Channels that are handled together; their number must be a multiple of it.
WIDTH = 16


@cache
def source() -> str:
    """Return the C++ of all degrees, with its registration as operations of torch."""
    degrees = [(a, b) for b in range(MAX_DEGREE + 1) for a in range(b + 1)]
    structs = "\n".join(_struct(*each) for each in degrees)
    cases = "\n".join(
        f"  if (inputs == {(a + 1) ** 2} && outputs == {(b + 1) ** 2}) "
        f"{{ known = true; work(D{a}{b}()); }}"
        for a, b in degrees
    )
    text = files("phicalc.backbone").joinpath("kernels.cpp").read_text(encoding="utf-8")
    return text.replace("// DEGREES", structs).replace("  // CASES", cases)


def _struct(l_in: int, l_max: int) -> str:
    """Messages along one edge, and their derivatives, for these degrees."""
    paths = couplings(l_in, l_max, l_max)
    forward = [line for p, degrees in enumerate(paths) for line in _forward(p, *degrees)]
    backward = [line for p, degrees in enumerate(paths) for line in _backward(p, *degrees)]
    return "\n".join([
        f"struct D{l_in}{l_max} {{",
        f"  static constexpr int inputs = {(l_in + 1) ** 2}, outputs = {(l_max + 1) ** 2}, "
        f"paths = {len(paths)};",
        "  static inline void forward(const float* y, const vec* h, const vec* r, vec* out) {",
        *forward,
        "  }",
        "  static inline void backward(const float* y, const vec* h, const vec* r, const vec* g,",
        "                              vec* d_h, vec* d_y, vec* d_r) {",
        *backward,
        "  }",
        "};",
    ])  # fmt: skip


def _terms(l1: int, l2: int, l3: int) -> Iterator[tuple[int, int, list[tuple[int, float]]]]:
    """Components of features and result, and the harmonics with coefficients between them."""
    table = coupling(l1, l2, l3)
    for a in range(2 * l1 + 1):
        for k in range(2 * l3 + 1):
            found = [
                (block(l2).start + b, float(table[a, b, k]))
                for b in range(2 * l2 + 1)
                if abs(table[a, b, k]) > 1e-12
            ]
            if found:
                yield a, block(l3).start + k, found


def _factor(harmonics: list[tuple[int, float]]) -> str:
    """Sum of harmonics, a number for each edge."""
    return " + ".join(f"{value:.9e}f * y[{b}]" for b, value in harmonics)


def _forward(path: int, l1: int, l2: int, l3: int) -> Iterator[str]:
    """Add the messages of one path."""
    first = block(l1).start
    yield "    {"
    for a in range(2 * l1 + 1):
        yield f"      vec w{a} = r[{path}] * h[{first + a}];"
    for a, k, harmonics in _terms(l1, l2, l3):
        yield f"      out[{k}] += w{a} * ({_factor(harmonics)});"
    yield "    }"


def _backward(path: int, l1: int, l2: int, l3: int) -> Iterator[str]:
    """Add the derivatives of one path."""
    first = block(l1).start
    yield "    {"
    for a in range(2 * l1 + 1):
        yield f"      vec w{a} = r[{path}] * h[{first + a}], s{a} = {{}};"
    for a, k, harmonics in _terms(l1, l2, l3):
        yield f"      s{a} += g[{k}] * ({_factor(harmonics)});"
        yield f"      {{ vec v = w{a} * g[{k}];"
        for b, value in harmonics:
            yield f"        d_y[{b}] += {value:.9e}f * v;"
        yield "      }"
    for a in range(2 * l1 + 1):
        yield f"      d_h[{first + a}] += r[{path}] * s{a};"
    products = " + ".join(f"h[{first + a}] * s{a}" for a in range(2 * l1 + 1))
    yield f"      d_r[{path}] = {products};"
    yield "    }"
