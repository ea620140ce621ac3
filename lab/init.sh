#!/bin/busybox sh
# Process 1 of a guest: mounts, loads modules, then runs what the lab sends over the second serial line (lab/shell.go). Scripts
# run in this machine's own shell, because busybox prefers its applets to programs that were brought along.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/busybox HOME=/
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /etc /busybox
/bin/busybox --install -s /busybox
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
for module in /modules/*; do
	insmod "$module" || echo "insmod $module: failed"
done
rm -rf /modules
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo 'guest is ready'
# Not in process 1: it inherits what daemons leave behind, and a read that meets the end of a child forgets what it has read.
while read -r mark script <&3; do
	echo "$script" | base64 -d >/tmp/script
	/bin/sh /tmp/script </dev/null >&3 2>&1
	echo "$mark $?" >&3
done &
wait $!
poweroff -f
