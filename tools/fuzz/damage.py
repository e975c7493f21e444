"""Ways in which disks, cables and editors damage a file."""

import numpy as np


def damaged(content: bytes, way: str, rng: np.random.Generator) -> tuple[bytes, int]:
    """Return content with one bit flipped, its end cut off or two unequal bytes exchanged."""
    place = int(rng.integers(len(content)))
    if way == "cut":
        return content[:place], place
    changed = bytearray(content)
    if way == "bit":
        changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed), place
    others = [i for i in range(len(content)) if content[i] != content[place]]
    other = others[rng.integers(len(others))]
    changed[place], changed[other] = changed[other], changed[place]
    return bytes(changed), place
