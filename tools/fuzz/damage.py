"""Ways in which disks, cables and editors damage a file."""

import numpy as np


def damaged(content: bytes, way: str, rng: np.random.Generator) -> tuple[bytes, int]:
    """Return content damaged in one way, and where.

    ``bit`` flips one, ``cut`` leaves out the end, ``digit`` changes a digit of a text, ``swap``
    exchanges two unequal bytes.
    """
    place = int(rng.integers(len(content)))
    if way == "cut":
        return content[:place], place
    changed = bytearray(content)
    digits = [i for i, byte in enumerate(content) if byte in b"0123456789"]
    if way == "digit" and digits:
        place = digits[rng.integers(len(digits))]
        changed[place] = b"1234567890"[changed[place] - ord("0")]
        return bytes(changed), place
    if way == "bit":
        changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed), place
    others = [i for i in range(len(content)) if content[i] != content[place]]
    other = others[rng.integers(len(others))]
    changed[place], changed[other] = changed[other], changed[place]
    return bytes(changed), place
