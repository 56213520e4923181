#!/usr/bin/env bash
# Checks and measures the CUDA kernels on a machine that has an NVIDIA GPU and its driver; nothing
# else is needed. `cargo xtask gpu-check` puts this script beside the programs that it runs, and
# `--help` tells how it is called.
#
# It goes on after a failure, so that one run tells all there is to tell.
set -u

usage() {
    cat << 'END'
usage: gpu-check.sh [--steps LIST] [--limit SECONDS] [--list] [--help] [RESULTS]

Checks and measures the kernels on the first GPU, or on the one that CUDA_VISIBLE_DEVICES names by
index or UUID. It is 0 if every chosen step was right, 1 if one was not, and 2 if it was called in a
way that is not understood.

  RESULTS          a directory for what comes of it (./results): a log of each step, figures as
                   JSON, and summary.jsonl, a line for each step and a last one for all of them
  --steps LIST     only these steps, such as device,pipes,correctness
  --limit SECONDS  the most that all of it may take (600)
  --list           print the steps with the most seconds that each may take, and do nothing

SEAL_TEST_CUDA=ptx runs it without a GPU, where the project is: the kernels' PTX in the file
SEAL_TEST_PTX is executed by the program SEAL_TEST_PTX_RUN, and LD_LIBRARY_PATH names the directory
of a stand-in for the driver. Sectors and measurements are small then, which tells no speed; a step
may take five times as long; nothing of C2 runs. `cargo xtask gpu-check --on-stand-in PTX` does all of that.
END
}

# Every step with the most seconds that it may take, and what it does.
#
# Sectors of 2 KiB to 8 MiB are made by the library and by the pc2-exec that users start. The work of
# a 32 GiB sector is done once; other batches need a quarter of it to be compared.
# c2-exec verifies each proof before it answers; `partition proved` in the logs has the times.
steps=(
    "device 60 the device and its driver"
    "pipes 60 the multiplier pipe: IMAD, IMAD.WIDE and DFMA a clock and multiprocessor"
    "correctness 180 every kernel against the processor, on random and extreme inputs"
    "sectors 180 whole sectors on the GPU, each file compared with the vectors"
    "sector 180 the kernels by themselves, and the work of a 32 GiB sector on data of the device"
    "sector-8-in-flight 90 the same with eight batches in flight, a quarter of the sector"
    "sector-large-batches 90 the same with batches of 2097152, a quarter of the sector"
    "predictions 20 what was measured beside what was predicted for the card"
    "c2-params 180 parameters for tests, 1.1 GB, a core minute"
    "c2-cpu 120 the captured task of a 2 KiB sector, proved on the processor"
    "c2-gpu 120 the same on the GPU"
    "c2-gpu-warm 180 the same three times in one process"
)
# From the end of a step's time until it is ended by force.
grace=5

wrong_call() {
    echo "gpu-check.sh: $1; --help tells how it is called" >&2
    exit 2
}

# The line of a step.
step_line() {
    local line
    for line in "${steps[@]}"; do
        if [ "${line%% *}" = "$1" ]; then
            echo "$line"
            return 0
        fi
    done
    return 1
}

chosen=
limit=600
results=
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h)
            usage
            exit 0
            ;;
        --list)
            for line in "${steps[@]}"; do
                read -r name most what <<< "$line"
                printf '%-22s %4s s  %s\n' "$name" "$most" "$what"
            done
            exit 0
            ;;
        --steps)
            [ $# -gt 1 ] || wrong_call "--steps needs a list of steps"
            chosen=$2
            [ -n "$chosen" ] || wrong_call "--steps names no step"
            IFS=, read -r -a names <<< "$chosen"
            for name in "${names[@]}"; do
                step_line "$name" > /dev/null || wrong_call "no step is called '$name' (--list)"
            done
            shift
            ;;
        --limit)
            [ $# -gt 1 ] || wrong_call "--limit needs a number of seconds"
            limit=$2
            [[ $limit =~ ^[1-9][0-9]{0,5}$ ]] ||
                wrong_call "--limit '$limit' is no number of seconds from 1 to 999999"
            shift
            ;;
        -*)
            wrong_call "the option '$1' is not known"
            ;;
        *)
            [ -z "$results" ] || wrong_call "'$1' is one directory too many after '$results'"
            [ -n "$1" ] || wrong_call "the directory for results has no name"
            results=$1
            ;;
    esac
    shift
done

export SEAL_TEST_CUDA=${SEAL_TEST_CUDA:-device}
case $SEAL_TEST_CUDA in
    device) little_work=() threads=1 patience=1 ;;
    ptx)
        for variable in SEAL_TEST_PTX SEAL_TEST_PTX_RUN; do
            file=${!variable-}
            [ -f "$file" ] || wrong_call "SEAL_TEST_CUDA=ptx needs a file in $variable, not '$file'"
        done
        little_work=(--nodes 256 --batch 64 --pipe-rounds 4..32)
        export SEAL_TEST_LITTLE=1
        threads=2 patience=5
        ;;
    *) wrong_call "SEAL_TEST_CUDA=$SEAL_TEST_CUDA is not known; it is device or ptx" ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
results=${results:-./results}
if ! { mkdir -p "$results" && results=$(cd "$results" && pwd) && : > "$results/summary.jsonl"; }; then
    wrong_call "the directory '$results' for results cannot be made or written"
fi
command -v timeout > /dev/null || wrong_call "the program timeout (GNU coreutils) is missing here"

milliseconds() {
    local now
    now=$(date +%s%N)
    echo "${now%??????}"
}

began=$(milliseconds)
failed=()
left_out=()
running=

# Who ends this script ends what it runs.
# shellcheck disable=SC2317 # Called by traps.
end_by() {
    if [ -n "$running" ]; then
        kill -TERM "$running" 2> /dev/null
        wait "$running"
    fi
    echo "==> ended by a signal; results until then are in $results"
    exit "$1"
}
trap 'end_by 130' INT
trap 'end_by 143' TERM HUP

# A text as a string of JSON.
quoted() {
    local text=$1
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/ }
    text=${text//$'\t'/ }
    printf '"%s"' "$text"
}

# Keeps what came of a step: right, wrong, or left out; milliseconds, and why.
keep() {
    printf '{"step":%s,"result":"%s","seconds":%d.%03d,"why":%s}\n' "$(quoted "$1")" "$2" \
        "$(($3 / 1000))" "$(($3 % 1000))" "$(quoted "$4")" >> "$results/summary.jsonl"
}

is_chosen() {
    [ -z "$chosen" ] || [[ ,$chosen, = *,"$1",* ]]
}

is_wrong() {
    echo "==> $1 FAILED: $3"
    failed+=("$1")
    keep "$1" wrong "$2" "$3"
}

leave_out() {
    echo "==> $1 is left out: $2"
    left_out+=("$1")
    keep "$1" "left out" 0 "$2"
    # Who asks for it by name is not content with less.
    if [ -n "$chosen" ] && is_chosen "$1"; then
        failed+=("$1")
    fi
}

# By its name, that and why a program cannot be started here.
declare -A unfit=()

# Runs a step: its name, the program that it needs, and the command.
step() {
    local name=$1 program=$2 most what left start took code
    shift 2
    echo
    if ! is_chosen "$name"; then
        leave_out "$name" "not chosen"
        return
    fi
    read -r _ most what <<< "$(step_line "$name")"
    echo "==> $name: $what"
    rm -f "$results/$name.log" "$results/$name.json"
    if [ -n "${unfit[$program]-}" ]; then
        is_wrong "$name" 0 "${unfit[$program]}"
        return
    fi
    start=$(milliseconds)
    most=$((most * patience))
    left=$((limit - (start - began) / 1000 - grace))
    if [ "$left" -lt 1 ]; then
        is_wrong "$name" 0 "not run, because the $limit s of --limit are over"
        return
    fi
    [ "$most" -le "$left" ] || most=$left
    timeout -k "$grace" "$most" "$@" > "$results/$name.log" 2>&1 < /dev/null &
    running=$!
    wait "$running"
    code=$?
    running=
    took=$(($(milliseconds) - start))
    cat "$results/$name.log"
    if [ "$code" = 0 ]; then
        echo "==> $name was right, in $((took / 1000)).$((took % 1000 / 100)) s"
        keep "$name" right "$took" ""
    elif [ "$took" -ge "$((most * 1000))" ] && { [ "$code" = 124 ] || [ "$code" = 137 ]; }; then
        is_wrong "$name" "$took" "ended after the $most s that it may take"
    elif [ "$code" -gt 128 ]; then
        is_wrong "$name" "$took" "ended by signal $((code - 128))"
    else
        is_wrong "$name" "$took" "exit code $code"
    fi
}

# What the dynamic linker misses for a program: libraries, and versions of those that are there.
missing() {
    local said code what
    if [ ! -x "$here/$1" ]; then
        echo "it is not in $here, or may not be run"
        return
    fi
    # As ldd asks, which is not everywhere.
    # shellcheck disable=SC2016 # $0 is the other shell's.
    said=$(LC_ALL=C timeout -k "$grace" 20 bash -c 'LD_TRACE_LOADED_OBJECTS=1 exec "$0"' "$here/$1" \
        2>&1 < /dev/null)
    code=$?
    what=$(grep -E 'not found|cannot open|cannot execute|No such file' <<< "$said" |
        sed 's/^[[:space:]]*//' | sort -u)
    if [ -z "$what" ] && [ "$code" -gt 125 ]; then
        what="the dynamic linker ended with $code"
    fi
    [ -z "$what" ] || paste -s -d ';' - <<< "$what"
}

look_at_libraries() {
    local program what seen=
    echo "the C library here: $(getconf GNU_LIBC_VERSION 2> /dev/null || echo "none of GNU")"
    for program in gpu-bench device-tests sector-tests pc2-exec c2-exec; do
        [ "$program" != c2-exec ] || [ -e "$here/c2-exec" ] || continue
        what=$(missing "$program")
        if [ -n "$what" ]; then
            unfit[$program]="$program cannot be started here: $what"
            echo "==> ${unfit[$program]}"
            seen=1
        fi
    done
    if [ -z "$seen" ]; then
        echo "every library that the programs need is here"
        return
    fi
    if [ -f "$here/needs.txt" ]; then
        echo "the programs need, each library with the newest version of each kind:"
        sed 's/^/    /' "$here/needs.txt"
    fi
}

# An executor that serves is told three tasks, and its standard input ends once it has answered all.
# One that dies is noticed within a second.
# shellcheck disable=SC2317 # Called by a shell of its own, which has a limit of time.
serve_three() {
    local requests=$results/c2-requests answers=$results/c2-answers id served code
    rm -f "$requests"
    mkfifo "$requests" || return 1
    "$here/c2-exec" processor c2 < "$requests" > "$answers" &
    served=$!
    # Nobody may read any more.
    trap '' PIPE
    exec 3> "$requests"
    rm -f "$requests"
    for id in 1 2 3; do
        sed "1s/\"id\":[0-9]*/\"id\":$id/" "$here/c2-task.jsonl" >&3 2> /dev/null || break
    done
    while kill -0 "$served" 2> /dev/null && [ "$(grep -c '"id"' "$answers")" -lt 3 ]; do
        sleep 0.2
    done
    exec 3>&-
    wait "$served"
    code=$?
    cat "$answers"
    if [ "$(grep -c '"id"' "$answers")" -lt 3 ]; then
        echo "c2-exec ended with $code before it had answered three tasks"
        return 1
    fi
    if [ "$code" != 0 ]; then
        echo "c2-exec answered three tasks, and ended with $code"
        return 1
    fi
    if [ "$(grep -c '"err_msg":null' "$answers")" != 3 ]; then
        echo "c2-exec did not prove all three tasks"
        return 1
    fi
}

# shellcheck disable=SC2317 # Called by a shell of its own.
which_device() {
    if command -v nvidia-smi > /dev/null; then
        nvidia-smi --format=csv \
            --query-gpu=index,name,uuid,driver_version,memory.total,clocks.max.sm,power.limit
    else
        echo "nvidia-smi is not here; the driver is asked directly"
    fi
    "$here/gpu-bench" --device-only --json "$results/device.json"
}

export here results
export -f serve_three which_device

look_at_libraries
if [ "$SEAL_TEST_CUDA" != device ]; then
    echo "on a stand-in: sectors and measurements are small, and no figure tells a speed"
fi
step device gpu-bench bash -c which_device

# Measures the device, for the step of this name.
measure() {
    step "$1" gpu-bench "$here/gpu-bench" --json "$results/$1.json" "${@:2}" \
        ${little_work[@]+"${little_work[@]}"}
}
measure pipes --pipes-only

# One at a time: each test has the device for itself, and the first failure is easy to read.
step correctness device-tests "$here/device-tests" --test-threads "$threads"

export SEAL_VECTORS_DIR="$here/vectors" SEAL_TEST_PC2_EXEC="$here/pc2-exec"
# Also where the project is, nothing but what was gathered is looked at.
export SEAL_TEST_WITHOUT_PROJECT=1
# They start it.
[ -z "${unfit[pc2-exec]-}" ] || unfit[sector-tests]=${unfit[pc2-exec]}
step sectors sector-tests "$here/sector-tests" gpu:: --test-threads "$threads"

# With the pipe once more, so that the kernels are told in percent of it.
measure sector
measure sector-8-in-flight --no-pipes --streams 8 --nodes 268435456
measure sector-large-batches --no-pipes --batch 2097152 --nodes 268435456

if ! is_chosen predictions; then
    step predictions gpu-bench false
elif [ ! -f "$here/predictions.json" ]; then
    leave_out predictions "predictions.json is not here: none was there when the files were gathered"
elif [ ! -f "$results/sector.json" ]; then
    leave_out predictions "the step sector has measured nothing that could be compared"
else
    step predictions gpu-bench "$here/gpu-bench" compare \
        --predictions "$here/predictions.json" --measured "$results/sector.json"
fi

export FIL_PROOFS_PARAMETER_CACHE=$results/c2-params SEAL_ALLOW_TEST_PARAMS=1
if [ "$SEAL_TEST_CUDA" != device ]; then
    no_c2="no driver that C2 could use is behind SEAL_TEST_CUDA=$SEAL_TEST_CUDA"
elif [ ! -e "$here/c2-exec" ]; then
    no_c2="c2-exec is not here: the files were gathered without it"
else
    no_c2=
fi
c2_step() {
    if [ -n "$no_c2" ]; then
        leave_out "$1" "$no_c2"
    else
        step "$1" c2-exec "${@:2}"
    fi
}
c2_step c2-params "$here/c2-exec" gen-params --sector-size 2KiB
c2_step c2-cpu "$here/c2-exec" --device cpu run --task "$here/c2-task.jsonl"
c2_step c2-gpu "$here/c2-exec" --device cuda run --task "$here/c2-task.jsonl"
export SEAL_C2_DEVICE=cuda
c2_step c2-gpu-warm bash -c serve_three

echo
[ ${#left_out[@]} = 0 ] || echo "left out: ${left_out[*]}"
took=$(($(milliseconds) - began))
if [ ${#failed[@]} = 0 ]; then
    keep all right "$took" ""
    echo "every step that was run was right, in $((took / 1000)) s; results are in $results"
    exit 0
fi
keep all wrong "$took" "failed: ${failed[*]}"
echo "failed: ${failed[*]}, in $((took / 1000)) s; results are in $results"
exit 1
