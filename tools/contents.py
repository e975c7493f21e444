"""What wheel and source distribution hold: sizes, and what is missing or too much.

``git ls-files | python -m tools.contents WHEEL SDIST`` prints both and fails if something is wrong
(`tools/package.sh` calls it).
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

#: Bytes that a wheel may have.
LARGEST_WHEEL = 6_000_000
#: Endings of files that only training and tests need.
DATA = (".xyz", ".extxyz", ".gz", ".npz", ".traj", ".db", ".h5")
#: What git tracks and no source distribution needs.
LEFT_OUT = {".gitignore"}


def wheel_sizes(path: Path) -> dict[str, int]:
    """Return the names in a wheel with their compressed sizes in bytes."""
    with zipfile.ZipFile(path) as wheel:
        return {entry.filename: entry.compress_size for entry in wheel.infolist()}


def sdist_sizes(path: Path) -> dict[str, int]:
    """Return the files of a source distribution with their sizes in bytes, not compressed."""
    with tarfile.open(path) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
    return {member.name.split("/", 1)[1]: member.size for member in files}


def faults_of_wheel(sizes: dict[str, int], total: int, tracked: Iterable[str]) -> list[str]:
    """Return what is wrong with a wheel of so many bytes; `tracked` are the files of the source."""
    faults = [f"{name}: data have no place in the wheel" for name in sizes if name.endswith(DATA)]
    if total > LARGEST_WHEEL:
        faults.append(f"{total / 1e6:.2f} MB are more than {LARGEST_WHEEL / 1e6:.0f}")
    for name in sizes:
        top = name.split("/")[0]
        if top not in ("phicalc", "pytest_phicalc.py") and not top.endswith(".dist-info"):
            faults.append(f"{name} would be installed beside the package")
    for name in tracked:
        path = PurePosixPath(name)
        if path.parts[0] == "phicalc" and path.suffix in (".py", ".typed"):
            wanted = name
        elif path.parts[0] == "models" and path.name in ("card.json", "weights.safetensors"):
            wanted = f"phicalc/{name}"
        else:
            continue
        if wanted not in sizes:
            faults.append(f"{wanted} is missing")
    return faults


def faults_of_sdist(sizes: dict[str, int], tracked: Iterable[str]) -> list[str]:
    """Return what a source distribution lacks: it holds all that git tracks."""
    return [f"{name} is missing" for name in tracked if name not in sizes and name not in LEFT_OUT]


def largest(sizes: dict[str, int], count: int = 8) -> str:
    """Return the largest folders, two levels deep, as lines of a table."""
    folders: Counter[str] = Counter()
    for name, size in sizes.items():
        folders["/".join(name.split("/")[:-1][:3]) or "."] += size
    rows = [f"  {size / 1e3:8.0f} kB  {name}" for name, size in folders.most_common(count)]
    return "\n".join(rows)


def main(wheel: Path, sdist: Path, tracked: list[str]) -> int:
    """Print sizes and faults; return the exit status."""
    in_wheel, in_sdist = wheel_sizes(wheel), sdist_sizes(sdist)
    faults = faults_of_wheel(in_wheel, wheel.stat().st_size, tracked)
    faults = [f"wheel: {fault}" for fault in faults]
    faults += [f"sdist: {fault}" for fault in faults_of_sdist(in_sdist, tracked)]
    for path, sizes in ((wheel, in_wheel), (sdist, in_sdist)):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {len(sizes)} files")
        print(largest(sizes))
    print("\n".join(faults) or "nothing missing, nothing too much")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.stdin.read().splitlines()))
