#!/usr/bin/env bash
# Try phicalc with several versions of Python and of what it needs:
#   tools/matrix.sh [NAME …]     (make matrix) e.g. tools/matrix.sh 3.12 lowest
#   3.11 3.12 …   this Python, with the versions of constraints.txt
#   lowest        the lowest versions that setup.cfg allows
#   highest       the newest that it allows and the index has
#   torch         the versions of constraints.txt, but the newest torch of the index, whatever setup.cfg says
# Each gets an environment of its own, phicalc from a wheel, and a quick part of the tests; what comes of it is a table. An environment takes
# some GB and goes when it has been tried; logs stay in $PHICALC_MATRIX (.matrix). Interpreters: pythonX.Y, pyenv's or uv's. MATRIX_PYTHON=3.12
# chooses the one of lowest, highest and torch, else it is the first of the list that is here.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environments.sh

versions=(3.11 3.12 3.13 3.14)
names=("$@")
[ $# -gt 0 ] || names=("${versions[@]}" lowest highest torch)
mkdir -p "${PHICALC_MATRIX:-.matrix}"
folder=$(cd "${PHICALC_MATRIX:-.matrix}" && pwd)

# interpreter VERSION …: the first that is here, or nothing
interpreter() {
    local version found
    for version in "$@"; do
        for found in "$(command -v "python$version" || true)" "$HOME/.pyenv/versions/$version".*/bin/python3 \
            "$(uv python find --no-python-downloads "$version" 2>/dev/null || true)"; do
            # A shim of pyenv is there for versions that are not active, too; it fails.
            if [ -x "$found" ] && "$found" -c 'import ensurepip' 2>/dev/null; then
                echo "$found"
                return
            fi
        done
    done
}

# fill ENVIRONMENT NAME: install phicalc, with what the name asks for
fill() {
    local wheel limits=$folder/$2.txt
    wheel=$(echo "$folder"/phicalc-*.whl)
    case $2 in
        lowest) python -m tools.bounds lowest >"$limits" && install_into "$1" --constraint "$limits" "$wheel[test]" ;;
        highest) install_into "$1" "$wheel[test]" ;;
        torch)
            # Without the pin of torch, which would bring the old one back.
            python -m tools.bounds rest >"$limits"
            grep -v '^torch==' constraints.txt >"$folder/pins.txt"
            install_into "$1" torch && install_into "$1" --constraint "$folder/pins.txt" --requirement "$limits" \
                && install_into "$1" --no-deps "$wheel"
            ;;
        *) install_into "$1" --constraint constraints.txt "$wheel[test]" ;;
    esac
}

# try NAME PYTHON: print a row of the table
try() {
    local environment=$folder/$1 log=$folder/$1.log result=fails
    new_environment "$environment" "$2"
    PATH=$environment/bin:$PATH
    if ! fill "$environment" "$1" >"$log" 2>&1; then
        result="does not install"
    elif (cd "$folder/source" && pytest "${quick_options[@]}" "${quick_tests[@]}" >>"$log" 2>&1); then
        result=$(grep -Eo '[0-9]+ passed' "$log" | tail -1)
    else
        result=$(grep -E '^[0-9]+ (failed|passed|error)' "$log" | tail -1 | sed 's/ in .*//' || true)
    fi
    python - "$1" "${result:-fails}" <<'PYTHON'
import sys
from importlib.metadata import PackageNotFoundError, version

def of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "–"

print("|", " | ".join([sys.argv[1], ".".join(map(str, sys.version_info[:3])),
                       *map(of, ("torch", "numpy", "scipy", "ase")), sys.argv[2]]), "|")
PYTHON
    rm -rf "$environment"
    [[ $result == *passed && $result != *failed* ]]
}

say "a wheel of what git tracks"
base=$(interpreter "${versions[@]}")
[ -n "$base" ] || stop "no Python among ${versions[*]} here"
tracked_files "$folder/source"
rm -f "$folder"/phicalc-*.whl
new_environment "$folder/base" "$base"
"$folder/base/bin/python" -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$folder" "$folder/source"
rm -rf "$folder/base" "$folder/source/build"

failed=0
echo '| set | Python | torch | NumPy | SciPy | ASE | tests |'
echo '| --- | --- | --- | --- | --- | --- | --- |'
for name in "${names[@]}"; do
    say "$name"
    case $name in
        [0-9]*) python=$(interpreter "$name") ;;
        lowest | highest | torch) python=$(interpreter ${MATRIX_PYTHON:-"${versions[@]}"}) ;;
        *) stop "expected a version of Python, lowest, highest or torch, got '$name'" ;;
    esac
    if [ -z "$python" ]; then
        echo "| $name | not here | | | | | not tried |"
    else
        (try "$name" "$python") || failed=1
    fi
done
exit "$failed"
