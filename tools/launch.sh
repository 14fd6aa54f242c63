# Sourced by the dist_*.sh and slurm_*.sh beside it.

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"

# launch SCRIPT PROCESSES ARGUMENTS...: one process per GPU through torchrun.
launch() {
    local script=$1 processes=$2
    shift 2

    # Share the cores out; torchrun would leave one to each process.
    local cores threads
    cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
    threads=$((cores > processes ? cores / processes : 1))
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}
    export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}

    # A run on one node takes any free port, so that two runs do not collide.
    local where=(--standalone)
    if [ "${NNODES:-1}" -gt 1 ] || [ -n "${PORT:-}" ]; then
        where=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
            --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
    fi
    exec "$python" "$tools/torchrun.py" "${where[@]}" \
        --max_restarts="${MAX_RESTARTS:-0}" --nproc_per_node="$processes" \
        "$tools/$script" "$@" --launcher pytorch
}

# launch_slurm SCRIPT PARTITION JOB_NAME ARGUMENTS...: one task per GPU.
launch_slurm() {
    local script=$1 partition=$2 job=$3 gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8}
    shift 3
    per_node=$((per_node < gpus ? per_node : gpus))
    local resources=(--partition="$partition" --job-name="$job" --gres=gpu:"$per_node"
        --ntasks="$gpus" --ntasks-per-node="$per_node"
        --cpus-per-task="${CPUS_PER_TASK:-8}" --signal="USR1@${GRACE:-120}")
    local task=("$python" -u "$tools/$script" "$@" --launcher slurm)
    # shellcheck disable=SC2086  # SRUN_ARGS may hold several arguments
    if [ -z "${REQUEUE:-}" ]; then
        exec srun "${resources[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} "${task[@]}"
    fi
    # A batch job, as Slurm starts no other anew. Preempted, it is requeued by Slurm;
    # out of time, by itself: 75 is the code of a run that saved and stopped.
    # shellcheck disable=SC2086
    exec sbatch "${resources[@]}" --requeue --open-mode=append ${SRUN_ARGS:-} \
        --output=slurm-%j.log --wrap \
        "srun --kill-on-bad-exit=1 ${task[*]@Q}; code=\$?
[ \$code -ne 75 ] || scontrol requeue \$SLURM_JOB_ID
exit \$code"
}
