#!/usr/bin/env bash
# Tests on the GPUs of this node, or on its CPU when there are none:
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
if [ $# -lt 3 ]; then sed -n 's/^# \?//; 2,4p' "$0" >&2; exit 2; fi
source "$(dirname "$0")/launch.sh"
launch test.py "$3" "$1" "$2" "${@:4}"
