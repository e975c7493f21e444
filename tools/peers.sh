#!/usr/bin/env bash
# Environments of other potentials, which the benchmarks time beside ours: tools/peers.sh [FOLDER]
# One for each, because they want different versions of the same libraries; 1.5 GB in all.
set -euo pipefail
folder=${1:-${PHICALC_PEERS:-.peers}}
torch=$(grep '^torch==' "$(dirname "$0")/../constraints.txt")

make_environment() {
    local name=$1 package=$2
    [ -x "$folder/$name/bin/python" ] && return
    "${PYTHON:-python3}" -m venv "$folder/$name"
    "$folder/$name/bin/python" -m pip install --quiet "$torch"
    "$folder/$name/bin/python" -m pip install --quiet "$package" "$torch"
}

make_environment mace mace-torch==0.3.16
make_environment nequip nequip==0.19.1
make_environment chgnet chgnet==0.4.2
