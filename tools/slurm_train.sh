#!/usr/bin/env bash
# Trains on a cluster with Slurm:
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (8), SRUN_ARGS and MASTER_PORT (29500)
# are read from the environment. GRACE (120) seconds before its time is over the run
# saves and stops. REQUEUE=1 makes it a batch job that goes on by itself after that,
# and when it was preempted; its output goes to slurm-JOB.log.
if [ $# -lt 4 ]; then sed -n 's/^# \?//; 2,7p' "$0" >&2; exit 2; fi
source "$(dirname "$0")/launch.sh"
launch_slurm train.py "$1" "$2" "$3" --work-dir "$4" ${REQUEUE:+--resume auto} "${@:5}"
