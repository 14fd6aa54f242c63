# Sourced by dist_train.sh and dist_test.sh.

# launch SCRIPT PROCESSES ARGUMENTS...: one process per GPU through torchrun.
launch() {
    local tools script=$1 processes=$2
    tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    shift 2

    # The cores are shared out; without this each process would have but one.
    local cores
    cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
    local threads=$((cores > processes ? cores / processes : 1))
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}
    export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}
    export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"

    # A run on one node takes any free port, so that two runs do not collide.
    local where=(--standalone)
    if [ "${NNODES:-1}" -gt 1 ] || [ -n "${PORT:-}" ]; then
        where=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
            --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
    fi
    exec "${PYTHON:-python}" -m torch.distributed.run "${where[@]}" \
        --nproc_per_node="$processes" "$tools/$script" "$@" --launcher pytorch
}
