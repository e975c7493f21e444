#!/usr/bin/env bash
# Environments of other potentials, which the benchmarks time beside ours: tools/peers.sh [FOLDER]
# One for each, because they want different versions of the same libraries; 7 GB in all. Those of
# mace and schnet hold this package too: benchmarks put its Φ-Module behind their networks.
set -euo pipefail
folder=${1:-${PHICALC_PEERS:-.peers}}
root=$(cd "$(dirname "$0")/.." && pwd)
torch=$(grep '^torch==' "$root/constraints.txt")

make_environment() {
    local name=$1
    shift
    [ -x "$folder/$name/bin/python" ] && return
    "${PYTHON:-python3}" -m venv "$folder/$name"
    "$folder/$name/bin/python" -m pip install --quiet "$torch"
    "$folder/$name/bin/python" -m pip install --quiet "$@" "$torch"
}

make_environment mace mace-torch==0.3.16 symmetrix-xl==0.1.1 --editable "$root"
make_environment calorine calorine==4.1
make_environment nequip nequip==0.19.1
make_environment chgnet chgnet==0.4.2
make_environment schnet torch_geometric==2.8.1 --editable "$root"
