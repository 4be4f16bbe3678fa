#!/bin/sh
# Process 1 of the virtual machine: the rest of the mounts, the tests, their results onto a disk, power off.
# binfmt_misc stays unmounted: the machine's own instance is lent out to one test after another (support/instance.py).
#   init.sh SLOWNESS ARGUMENT ... (pytest's)
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
export BINFMTD_TEST_MACHINE=1 BINFMTD_TEST_SLOWNESS="$1"
shift
checkout=$(cd "$(dirname "$0")/../.." && pwd)

mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup

# As a user installs it.
make -C "$checkout" install > /run/install.log 2>&1 || cat /run/install.log

cd "$checkout" || exit
echo "== $(uname -sr), $(python3 --version), a slowness of $BINFMTD_TEST_SLOWNESS"
uname -v | sed 's/.*Debian //; s/ .*//' > /run/release # what `uname -r` says stays the same over many of them
python3 -m pytest --junit-xml=/run/results.xml "$@"
tar -cf /dev/disk-results -C /run release results.xml
sync
echo o > /proc/sysrq-trigger
sleep 600 # it takes a moment, and a kernel whose process 1 ends panics
