#!/bin/busybox sh
# The first process of the machine that `cargo xtask vm-test` starts: two NUMA nodes, cpus 0-1 on
# node 0 and 2-3 on node 1. Each check writes `vm-test NAME: ` and what the programs say.
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t cgroup2 none /sys/fs/cgroup
echo 1 > /proc/sys/kernel/printk
export RUST_LOG=info

# say NAME COMMAND...: runs it, every line of it under its name, and the exit code.
say() {
    name=$1
    shift
    "$@" 2>&1 | sed "s/^/vm-test $name: /"
}

# code COMMAND...: runs it and tells its exit code.
code() {
    "$@"
    echo "exit $?"
}

# in_group CPUS COMMAND...: runs it in a cgroup with these cpus and all memory.
in_group() {
    group=/sys/fs/cgroup/cpus-$1
    mkdir -p "$group"
    echo "$1" > "$group/cpuset.cpus"
    shift
    (
        sh -c "echo \$PPID" > "$group/cgroup.procs"
        "$@"
    )
}

echo +cpuset > /sys/fs/cgroup/cgroup.subtree_control

# The supervisor with two executors in cgroups of version 2, before this script makes its own.
# places: what the kernel says of the executors' groups and processes.
places() {
    for group in /sys/fs/cgroup/seal-exec/*/pc1-0.* /sys/fs/cgroup/seal-exec/*/second/pc1-1.*; do
        pid=$(cat "$group/cgroup.procs")
        echo "group ${group##*/}: cpus $(cat "$group/cpuset.cpus.effective")," \
            "memory of $(cat "$group/cpuset.mems.effective")," \
            "allowed $(sed -n 's/^Cpus_allowed_list:.//p' "/proc/$pid/status")," \
            "$(grep -o -m 1 'bind:[0-9]*' "/proc/$pid/numa_maps")"
    done
}

# shares: of each executor its node, and how much of its memory lies there by the status.
shares() {
    seal-supervisor status --json | tr ',{}' '\n\n\n' | awk -F: '
        /^"numa_node"/ { node = $2 }
        /^"percent_local"/ { print "node " node ": " ($2 + 0 > 80 ? "most" : "little") " local, " $2 }'
}

# await COUNT TEXT: until the supervisor's output has it so often.
await() {
    tries=0
    while [ "$(grep -c "$2" /tmp/supervisor)" -lt "$1" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || { echo "never: $1 times $2"; cat /tmp/supervisor; return; }
        sleep 0.1
    done
}

# supervise: starts the supervisor, whose input stays open until /tmp/input is closed.
supervise() {
    mkfifo /tmp/input
    seal-supervisor processor pc1 --config /staged/supervisor.toml < /tmp/input > /tmp/supervisor 2>&1 &
    supervisor=$!
    exec 3> /tmp/input
    rm /tmp/input
    await 2 "executor is ready"
}

mkdir -p /run
supervise
say v2-start places
kill -9 "$(cat /sys/fs/cgroup/seal-exec/*/second/pc1-1.1/cgroup.procs)"
await 3 "executor is ready"
say v2-restart places
say v2-shares shares

# What the kernel kills for want of memory is told so, and started again in a new group.
echo 0 > "$(echo /sys/fs/cgroup/seal-exec/*/second/pc1-1.2/memory.max)"
await 4 "executor is ready"
say v2-oom grep -o "killed by the kernel because its cgroup was out of memory" /tmp/supervisor
exec 3>&-
wait "$supervisor"
say v2-end sh -c "echo exit $?; ls -d /sys/fs/cgroup/seal-exec || echo no groups"

# A supervisor that is killed leaves its groups; the next one removes them.
supervise
killed=$(echo /sys/fs/cgroup/seal-exec/*)
kill -9 "$supervisor"
exec 3>&-
wait "$supervisor"
say v2-killed sh -c "ls -d $killed > /tmp/left && echo left"
supervise
say v2-swept sh -c "ls -d $killed || echo removed"
exec 3>&-
wait "$supervisor"

# cpus that the groups above withhold, and those that are switched off.
echo 0 > /sys/devices/system/cpu/cpu3/online
say v2-offline code seal-supervisor config --check --config /staged/supervisor.toml
echo 1 > /sys/devices/system/cpu/cpu3/online

say kernel uname -r
say machine cat /sys/devices/system/node/node0/cpulist /sys/devices/system/node/node1/cpulist
say group in_group 2-3 code placement 64 strict
say cut-group in_group 3 code placement 16 strict
say all-cpus code placement 32 strict
say too-much in_group 2-3 code placement 600 strict
say preferred in_group 2-3 code placement 600 preferred
say outside-group in_group 0-1 code env VC_CG_CPUSET=2-3 placement 16 strict
say partly-outside-group in_group 0-2 code env VC_CG_CPUSET=2-3 placement 16 strict
say environment code env VC_CG_CPUSET=2-3 VENUS_WORKER_NUMA_PREFERRED=1 placement 16 strict
say no-node code env VENUS_WORKER_NUMA_PREFERRED=2 placement 16 strict
say interleaved code placement 64 interleaved
say interleaved-on-one in_group 2-3 code placement 64 interleaved
say executor code env VC_CG_CPUSET=9 pc1-exec
# An executor that venus-worker starts itself makes the group that it is told, and removes it.
say own-group code env VC_CG_NAME=vc/pc1 VC_CG_CPUSET=2-3 pc1-exec < /dev/null
say own-group-end sh -c "ls -d /sys/fs/cgroup/seal-exec || echo no groups"

# Huge pages that are set aside on node 1 serve node 1 only.
pages=hugepages/hugepages-2048kB
echo 16 > /sys/devices/system/node/node1/$pages/nr_hugepages
say huge-pages in_group 2-3 code placement 32 strict
say huge-pages-of-the-other-node in_group 0-1 code placement 32 strict
echo 0 > /sys/devices/system/node/node1/$pages/nr_hugepages

# From here on what is logged is looked at by its fields.
export SEAL_LOG_FORM=json
mkdir -p /mnt/huge
mount -t hugetlbfs -o pagesize=2M none /mnt/huge
say files code pc1-exec hugepages --node 1 --count 3 --size 8MiB --dir /mnt/huge
say files-again code pc1-exec hugepages --node 1 --count 3 --size 8MiB --dir /mnt/huge
say files-pages cat /sys/devices/system/node/node0/$pages/nr_hugepages \
    /sys/devices/system/node/node1/$pages/nr_hugepages

# A whole PC1 in two of these files.
mkdir -p /sector
mount -t tmpfs none /sector
cp -r /staged/. /sector
export FIL_PROOFS_PARENT_CACHE=/sector/parents HUGEPAGE_FILES_PATH=/mnt/huge
say sector in_group 2-3 code pc1-exec run --task /sector/task.json
say layers sha256sum /sector/cache/sc-02-data-layer-1.dat /sector/cache/sc-02-data-layer-2.dat
unset HUGEPAGE_FILES_PATH

# An executor on all cpus: its task thread may run on either node, its labelling threads and what
# they share may not.
rm -rf /sector/cache /sector/sealed
mkdir /sector/cache
say ring code env RUST_LOG=info,seal_sdr=debug pc1-exec run --task /sector/task.json

# The same where the first node, on which it would go, is full but for less than is left alone.
mkdir -p /full
mount -t tmpfs -o size=100%,mpol=bind:0 none /full
free=$(awk '/MemFree/ { print int($4 / 1024) }' /sys/devices/system/node/node0/meminfo)
dd if=/dev/zero of=/full/taken bs=1M count=$((free - 120)) 2> /dev/null
rm -rf /sector/cache /sector/sealed
mkdir /sector/cache
say other-node code env RUST_LOG=info,seal_sdr=debug pc1-exec run --task /sector/task.json
umount /full

# threads: where the kernel lets the threads of an executor run that waits for requests.
threads() {
    mkfifo /tmp/requests
    VC_CG_CPUSET=1-3 pc1-exec < /tmp/requests > /tmp/ready 2> /dev/null &
    executor=$!
    exec 3> /tmp/requests
    tries=0
    while [ ! -s /tmp/ready ] && [ "$tries" -lt 300 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    for thread in /proc/$executor/task/*; do
        echo "$(cat "$thread/comm") may run on" \
            "$(sed -n 's/^Cpus_allowed_list:.//p' "$thread/status")"
    done
    exec 3>&-
    wait "$executor"
    echo "exit $?"
}
say threads threads

say files-too-many code pc1-exec hugepages --node 1 --count 3 --size 512MiB --dir /mnt/huge

echo "vm-test end"
sync
poweroff -f
