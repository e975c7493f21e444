# What tools/package.sh and tools/matrix.sh share; neither calls it alone.
# shellcheck shell=bash

# A part of the tests that takes two minutes and touches what depends on versions: torch, NumPy, ASE, files, processes; or
# those named by $QUICK_TESTS.
quick_tests=(tests/test_calculator.py tests/test_relax.py tests/test_checkpoint.py tests/test_structures.py
    tests/md/test_driver.py tests/md/test_restart.py tests/training/test_whole_run.py)
[ -z "${QUICK_TESTS:-}" ] || read -ra quick_tests <<<"$QUICK_TESTS"
quick_options=(-n 0 -q -m "not slow and not benchmark and not thorough")

say() { printf '\n== %s\n' "$*" >&2; }
stop() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# tracked_files FOLDER: a copy of what git tracks, as it is in the working tree
tracked_files() {
    rm -rf "$1"
    mkdir -p "$1"
    git ls-files -z | tar --create --null --files-from=- | tar --extract --directory "$1"
}

# new_environment FOLDER PYTHON: a new, empty environment
new_environment() {
    rm -rf "$1"
    "$2" -m venv "$1"
}

# install_into FOLDER ARGUMENT…: pip install; with uv where there is one, which is several times faster
install_into() {
    local folder=$1
    shift
    if command -v uv >/dev/null; then
        uv pip install --quiet --python "$folder/bin/python" "$@"
    else
        "$folder/bin/python" -m pip --disable-pip-version-check install --quiet "$@"
    fi
}

# first_block FILE: the first block of Python of a page
first_block() { awk '/^```python/ {inside = 1; next} /^```/ {if (inside) exit} inside' "$1"; }
