#!/usr/bin/env bash
# Trains on a cluster with Slurm:
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (8), SRUN_ARGS and MASTER_PORT (29500)
# are read from the environment.
if [ $# -lt 4 ]; then sed -n 's/^# \?//; 2,5p' "$0" >&2; exit 2; fi
source "$(dirname "$0")/launch.sh"
launch_slurm train.py "$1" "$2" "$3" --work-dir "$4" "${@:5}"
