#!/usr/bin/env bash
# Trains on the GPUs of this node, or on its CPU when there are none:
#   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. With
# MAX_RESTARTS=3 and --resume auto, a run of which a process dies goes on thrice.
if [ $# -lt 2 ]; then sed -n 's/^# \?//; 2,5p' "$0" >&2; exit 2; fi
source "$(dirname "$0")/launch.sh"
launch train.py "$2" "$1" "${@:3}"
