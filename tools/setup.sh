#!/usr/bin/env bash
# Make .venv and fill it. Called by the Makefile:
#   tools/setup.sh base      phicalc (editable) with all that installs from wheels
#   tools/setup.sh docs      what builds the documentation
#   tools/setup.sh cluster   torch-cluster, compiled from source; goes on without it if that fails
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
python=$venv/bin/python
pip=("$python" -m pip --disable-pip-version-check)

say() { printf '\n== %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }

make_venv() {
    [ -x "$python" ] && "$python" -m pip --version >/dev/null 2>&1 && return
    local base=${PYTHON:-python3}
    command -v "$base" >/dev/null \
        || stop "no '$base' here; install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3"
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || stop "$("$base" --version) is too old: phicalc needs 3.11 or newer; name one: make setup PYTHON=python3.12"
    say "making $venv with $("$base" --version)"
    "$base" -m venv "$venv" || stop "'$base -m venv' failed, probably because Python came without ensurepip;" \
        "on Debian and Ubuntu: apt-get install python3-venv, then rm -rf $venv and make setup again"
}

install_base() {
    make_venv
    say "torch, pinned by constraints.txt"
    "${pip[@]}" install --quiet --constraint constraints.txt torch setuptools wheel
    say "phicalc with its extras"
    "${pip[@]}" install --quiet --constraint constraints.txt --editable '.[all]'
    "$python" -c 'import phicalc, torch; print("phicalc", phicalc.__version__, "with torch", torch.__version__)'
}

has_cluster() { "$python" -c 'import torch_cluster' >/dev/null 2>&1; }

install_cluster() {
    if has_cluster; then return; fi
    local compiler=${CXX:-c++}
    if ! command -v "${compiler%% *}" >/dev/null; then
        say "no C++ compiler ('$compiler'): going on without torch-cluster; its tests will be skipped." \
            "Install g++ and run 'make setup' again to add it."
        return
    fi
    say "torch-cluster: seconds from a wheel in pip's cache, else 5 to 15 minutes of compiling"
    local build=("${pip[@]}" install --quiet --constraint constraints.txt --no-build-isolation)
    # Its setup.py turns ninja off, which leaves one job; setuptools compiles the modules side by side.
    local jobs=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)}
    DIST_EXTRA_CONFIG=$(mktemp)
    export DIST_EXTRA_CONFIG
    trap 'rm -f "$DIST_EXTRA_CONFIG"' EXIT
    printf '[build_ext]\nparallel = %s\n' "$jobs" >"$DIST_EXTRA_CONFIG"
    if "${build[@]}" torch-cluster && ! has_cluster; then
        # pip's cache does not know which torch a wheel was compiled against.
        say "the wheel in pip's cache does not load with this torch; compiling anew"
        "${pip[@]}" cache remove torch_cluster
        "${build[@]}" --force-reinstall --no-deps torch-cluster || true
    fi
    has_cluster || say "torch-cluster could not be installed: going on without it; its tests will be skipped." \
        "'make setup' tries again."
}

install_docs() {
    say "what builds the documentation"
    "${pip[@]}" install --quiet --constraint constraints.txt --editable '.[docs]'
}

case "${1:-}" in
    base) install_base ;;
    docs) install_docs ;;
    cluster) install_cluster ;;
    *) stop "expected 'base', 'docs' or 'cluster', got '${1:-}'" ;;
esac
