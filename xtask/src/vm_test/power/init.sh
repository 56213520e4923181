#!/bin/busybox sh
# The first process of the machine whose power is cut. The disk holds a sector; what was begun
# there before is told, and goes on: PC1 until its answer is on disk, then PC2.
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
echo 1 > /proc/sys/kernel/printk
export RUST_LOG=info FIL_PROOFS_PARENT_CACHE=/sector/parents SEAL_RUNTIME_DIR=/tmp/run
# What the executors publish is on disk, and not by luck: the kernel writes back late.
echo 100000 > /proc/sys/vm/dirty_writeback_centisecs

# Lines and no progress bars: standard error is a pipe and no terminal.
mkfifo /tmp/log
cat /tmp/log > /dev/console &
exec 2> /tmp/log

mkdir -p /sector
mount -t ext4 /dev/nvme0n1 /sector || echo "power no-disk"

if [ ! -e /sector/begun ]; then
    cp -r /staged/. /sector
    sync
    touch /sector/begun
    sync
fi

# tell NAME: every file under a final name, with its digest.
tell() {
    for file in /sector/sealed /sector/cache/*; do
        [ -e "$file" ] && echo "power $1: $(sha256sum "$file")"
    done
    echo "power $1 told"
}

# store FILE: standard input, whole under its name or not there.
store() {
    cat > "$1.new"
    sync
    mv "$1.new" "$1"
    sync
}

# What is after the last stage that was asked for, and the end of the machine.
end() {
    tell result
    ls -A /sector/cache | sed 's/^/power name: /'
    echo "power end"
    sync
    poweroff -f
}

tell found
if [ ! -e /sector/pc1out.json ]; then
    echo "power pc1"
    pc1-exec run --task /sector/task.json > /tmp/pc1out.json || echo "power failed: pc1"
    [ -s /tmp/pc1out.json ] && store /sector/pc1out.json < /tmp/pc1out.json
    echo "power pc1 done"
fi
grep -q seal.last=pc1 /proc/cmdline && end
printf '{"pc1out":%s,"cache_dir":"/sector/cache","sealed_file":"/sector/sealed"}\n' \
    "$(cat /sector/pc1out.json)" > /tmp/pc2.json
echo "power pc2"
pc2-exec run --task /tmp/pc2.json || echo "power failed: pc2"
echo "power pc2 done"
end
