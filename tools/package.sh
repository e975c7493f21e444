#!/usr/bin/env bash
# Build wheel and source distribution of what git tracks here, look into both, and try both:
#   tools/package.sh [FOLDER]     (make package) FOLDER holds them in the end, dist by default
# The wheel is installed into a new environment and does the first calculation of the README from an empty folder, the source distribution
# runs a quick part of its own tests from where it was unpacked.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environments.sh

python=$(command -v "${PYTHON:-.venv/bin/python}") || stop "no ${PYTHON:-.venv/bin/python} here: make setup, or PYTHON=…"
mkdir -p "${1:-dist}"
out=$(cd "${1:-dist}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "building from what git tracks"
tracked_files "$work/source"
rm -f "$out"/phicalc-*
"$python" -m build --outdir "$out" "$work/source" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
wheel=$(echo "$out"/phicalc-*.whl)
sdist=$(echo "$out"/phicalc-*.tar.gz)

say "metadata and contents"
"$python" -m twine check --strict "$wheel" "$sdist"
git ls-files | "$python" -m tools.contents "$wheel" "$sdist"

say "the wheel, from an empty folder"
new_environment "$work/wheel" "$python"
install_into "$work/wheel" --constraint constraints.txt torch
install_into "$work/wheel" --constraint constraints.txt "$wheel"
first_block README.md >"$work/first.py"
mkdir "$work/empty"
(cd "$work/empty" && "$work/wheel/bin/python" "$work/first.py" && "$work/wheel/bin/phicalc" doctor --no-compile)

say "the source distribution, a quick part of its tests"
mkdir "$work/unpacked"
tar --extract --file "$sdist" --strip-components 1 --directory "$work/unpacked"
install_into "$work/wheel" --constraint constraints.txt "$work/unpacked[test]"
# Not `python -m pytest`: that would import from the folder in place of what was installed.
(cd "$work/unpacked" && "$work/wheel/bin/pytest" "${quick_options[@]}" "${quick_tests[@]}")
say "$wheel, $sdist: good"
