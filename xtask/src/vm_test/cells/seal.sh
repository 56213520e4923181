# What a worker does with a sector of 2 KiB, by three supervisors. KEYS are those of [supervisor].
keys=$1
export RUST_LOG=info SEAL_LOG_FORM=json SEAL_RUNTIME_DIR=/run/seal-exec SEAL_FAULT_WAIT=1s
export FIL_PROOFS_PARENT_CACHE=/sector/parents FIL_PROOFS_PARAMETER_CACHE=/sector/no-params
mkdir -p /sector
cp -r /staged/. /sector
{
    echo "[supervisor]"
    echo "$keys"
    for stage in pc1 pc2 c2; do
        printf '[[processors.%s]]\nbin = "/bin/%s-exec"\nnuma_preferred = 0\n' $stage $stage
        echo 'cgroup.cpuset = "0-1"'
    done
} > /sector/config.toml

# await FILE TEXT: until the file has it.
await() {
    tries=0
    until grep -q "$2" "$1"; do
        tries=$((tries + 1))
        [ "$tries" -lt 900 ] || { echo "never: $2 in $1"; cat "$1"; return; }
        sleep 0.1
    done
}

# start STAGE FD: a supervisor whose input is open as FD.
start() {
    mkfifo /sector/in
    seal-supervisor processor "$1" --config /sector/config.toml \
        < /sector/in > "/sector/$1.out" 2> "/sector/$1.log" &
    eval "exec $2> /sector/in"
    rm /sector/in
    await "/sector/$1.out" "processor ready"
}

# ask STAGE FD FILE: the task in FILE; the answer is the last line of the output.
ask() {
    printf '{"id":1,"task":%s}\n' "$(cat "$3")" > "/proc/self/fd/$2"
    await "/sector/$1.out" '^{'
    answer=$(grep '^{' "/sector/$1.out" | cut -c 1-2000)
    case $answer in
        *'"err_msg":null'*) echo "$1 answered" ;;
        *) echo "$1 answer: $answer" ;;
    esac
}

start pc1 3
start pc2 4
start c2 5
ask pc1 3 /sector/task.json
printf '{"pc1out":%s,"cache_dir":"/sector/cache","sealed_file":"/sector/sealed"}\n' \
    "$(grep '^{' /sector/pc1.out | sed 's/.*"output"://; s/}$//')" > /sector/pc2.json
ask pc2 4 /sector/pc2.json
ask c2 5 /sector/c2.json
seal-supervisor status > /sector/status || echo "status: exit $?"
echo "supervisors: $(grep -c '^[a-z0-9]* *supervisor ' /sector/status)"
grep '"level":"WARN"' /sector/pc1.log | cut -c 1-600
exec 3>&- 4>&- 5>&-
wait
for file in /sector/sealed /sector/cache/*; do
    sha256sum "$file"
done
