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
say executor code env VC_CG_CPUSET=9 pc1-exec

# Huge pages that are set aside on node 1 serve node 1 only.
pages=hugepages/hugepages-2048kB
echo 16 > /sys/devices/system/node/node1/$pages/nr_hugepages
say huge-pages in_group 2-3 code placement 32 strict
say huge-pages-of-the-other-node in_group 0-1 code placement 32 strict
echo 0 > /sys/devices/system/node/node1/$pages/nr_hugepages

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

say files-too-many code pc1-exec hugepages --node 1 --count 3 --size 512MiB --dir /mnt/huge

echo "vm-test end"
sync
poweroff -f
