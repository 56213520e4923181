#!/usr/bin/env bash
# Checks and measures the CUDA kernels on a machine that has an NVIDIA GPU and its driver; nothing
# else is needed. `cargo xtask gpu-check` puts this script beside the binaries that it runs.
#
#   ./gpu-check.sh [RESULTS]     results go to the directory RESULTS (./results)
#
# In this order, and it goes on after a failure so that one run tells all there is to tell:
#   1. the device and its clocks
#   2. the multiplier pipe: IMAD, IMAD.WIDE and DFMA a clock and multiprocessor
#   3. correctness of every kernel against the processor, on random and extreme inputs
#   4. whole sectors by the library and by pc2-exec on the GPU, each file compared with the vectors
#   5. the kernels by themselves, and the work of a 32 GiB sector on data made on the device, for
#      batches of two sizes and two numbers of batches in flight
#   6. C2: parameters for tests are made (1.1 GB, a core minute), then the captured task of a 2 KiB
#      sector is proved on the processor, on the GPU, and three times on the GPU in one process.
#      c2-exec verifies each proof before it answers; `partition proved` in the logs has the times
#
# It is 0 if everything was right. A GPU is chosen by CUDA_VISIBLE_DEVICES, by index or UUID.
set -u
here=$(cd "$(dirname "$0")" && pwd)
results=${1:-./results}
mkdir -p "$results" || exit 1
failed=0

step() {
    name=$1
    shift
    echo
    echo "==> $name"
    if "$@" > "$results/$name.log" 2>&1; then
        cat "$results/$name.log"
    else
        code=$?
        cat "$results/$name.log"
        echo "==> $name FAILED with $code"
        failed=1
    fi
}

if command -v nvidia-smi > /dev/null; then
    step device nvidia-smi --query-gpu=index,name,uuid,driver_version,memory.total,clocks.max.sm,power.limit --format=csv
else
    echo "nvidia-smi is not here; the driver is asked directly"
fi

step pipes "$here/gpu-bench" --pipes-only --json "$results/pipes.json"

# One at a time: each test has the device for itself, and the first failure is easy to read.
step correctness env SEAL_TEST_CUDA=device "$here/device-tests" --test-threads 1

# Sectors of 2 KiB, 16 KiB, 32 KiB and 8 MiB; the last test starts the pc2-exec that users start.
export SEAL_VECTORS_DIR="$here/vectors" SEAL_TEST_PC2_EXEC="$here/pc2-exec"
step sectors env SEAL_TEST_CUDA=device "$here/sector-tests" gpu:: --test-threads 1

# With the pipe once more, so that the kernels are told in percent of it.
step sector "$here/gpu-bench" --json "$results/sector.json"
step sector-8-in-flight "$here/gpu-bench" --no-pipes --streams 8 --json "$results/sector-8-in-flight.json"
step sector-large-batches "$here/gpu-bench" --no-pipes --batch 2097152 --json "$results/sector-large-batches.json"

# An executor that serves is told three tasks and ended once it has answered all.
serve_three() {
    answers=$results/c2-answers
    : > "$answers"
    {
        for id in 1 2 3; do
            sed "1s/\"id\":[0-9]*/\"id\":$id/" "$here/c2-task.jsonl"
        done
        waited=0
        while [ "$(grep -c '"id"' "$answers")" -lt 3 ] && [ "$waited" -lt 300 ]; do
            sleep 1
            waited=$((waited + 1))
        done
    } | "$here/c2-exec" processor c2 > "$answers"
    [ "$(grep -c '"err_msg":null' "$answers")" = 3 ]
}

if [ -x "$here/c2-exec" ]; then
    export FIL_PROOFS_PARAMETER_CACHE=$results/c2-params SEAL_ALLOW_TEST_PARAMS=1
    step c2-params "$here/c2-exec" gen-params --sector-size 2KiB
    step c2-cpu "$here/c2-exec" --device cpu run --task "$here/c2-task.jsonl"
    step c2-gpu "$here/c2-exec" --device cuda run --task "$here/c2-task.jsonl"
    export SEAL_C2_DEVICE=cuda
    step c2-gpu-warm serve_three
else
    echo "c2-exec is not here: nothing of C2 is checked"
fi

echo
if [ "$failed" = 0 ]; then
    echo "everything was right; results are in $results"
else
    echo "something failed; results are in $results"
fi
exit "$failed"
