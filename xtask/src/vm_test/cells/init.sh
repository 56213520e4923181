#!/bin/busybox sh
# The first process of the machine in which sectors are sealed in what containers have of cgroups
# of version 2. Each cell writes `cell NAME: ` and what was answered, warned of and made.
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t cgroup2 none /sys/fs/cgroup
echo 1 > /proc/sys/kernel/printk
mkdir -p /run

top=/sys/fs/cgroup
for controller in cpuset memory pids; do
    echo "+$controller" > $top/cgroup.subtree_control
done

# cell NAME GROUP KEYS UNSHARE SETUP: a sector is sealed by processes in GROUP, in namespaces of
# their own in which SETUP was done; KEYS are keys of [supervisor].
cell() {
    (
        sh -c "echo \$PPID" > "$top/$2/cgroup.procs"
        exec /usr/bin/unshare $4 sh -c "$5 && exec sh /seal.sh '$3'"
    ) < /dev/null 2>&1 | sed "s/^/cell $1: /"
    rm -rf /sector
}

own="--mount"
mkdir $top/plain $top/memory $top/above $top/above/inner $top/pids
echo 536870912 > $top/memory/memory.max
echo 536870912 > $top/above/memory.max
echo 96 > $top/pids/pids.max

cell memory memory '' $own true
cell memory-above above/inner '' $own true
cell memory-own-namespace memory '' "$own --cgroup" \
    "umount $top && mount -t cgroup2 none $top"
cell pids pids '' $own true
cell read-only plain '' $own "mount -o remount,bind,ro $top"
cell read-only-always plain 'cgroup = "always"' $own "mount -o remount,bind,ro $top"
cell absent plain '' $own "umount $top"
cell absent-always plain 'cgroup = "always"' $own "umount $top"
cell no-sys plain '' $own "umount $top && umount /sys"
cell always plain 'cgroup = "always"' $own true
cell namespaces memory '' "--user --map-root-user --mount --pid --fork --kill-child \
    --mount-proc --time --boottime=3600 --cgroup --ipc --uts --net" true

ls -d $top/seal-exec $top/*/seal-exec 2> /dev/null | sed 's/^/cell left: /'
echo "cells end"
sync
poweroff -f
