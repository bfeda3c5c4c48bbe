#!/bin/sh
# Runs first in the guest: `guest.sh RUN`, with RUN a folder of the host that the guest may write to.
# It gives RUN/command a usual machine, passes on its output by the virtio ports, and leaves its status in RUN/status.
run=$1

# The kernel's complaints go to the second serial port, which the host keeps in RUN/console.
dmesg -n 5
ip link set lo up
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
# Where an installed kernel of Debian's has its configuration.
mount -t tmpfs boot /boot && cp "$run/config" "/boot/config-$(uname -r)"

port() {
    for port in /sys/class/virtio-ports/*; do
        [ "$(cat "$port/name")" != "$1" ] || echo "/dev/${port##*/}"
    done
}

# A port takes one writer that opens it by name, so everybody else writes to a pipe. When it has one already, that is us.
mkfifo /run/xdpchain-out /run/xdpchain-err
{ cat /run/xdpchain-out >"$(port virtme.stdout)" || cat /run/xdpchain-out; } 2>/dev/null &
out=$!
{ cat /run/xdpchain-err >"$(port virtme.stderr)" || cat /run/xdpchain-err >&3; } 3>&2 2>/dev/null &
err=$!
exec >/run/xdpchain-out 2>/run/xdpchain-err </dev/null
for name in stdout:1 stderr:2; do
    rm -f "/dev/${name%:*}"
    ln -s "/proc/self/fd/${name#*:}" "/dev/${name%:*}"
done

cut -d ' ' -f 1 /proc/uptime >"$run/booted"
timeout -k 10 "$(cat "$run/limit")" sh "$run/command"
echo $? >"$run/status"

# Processes that the command left behind may keep the pipes open: they are waited for, but not for long.
exec >/dev/null 2>&1
for _ in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 $out 2>/dev/null || kill -0 $err 2>/dev/null || break
    sleep 0.2
done
exit 0
