#!/bin/bash
# usage: boot.sh CHECKOUT COMMAND...
# Boots a real systemd as PID 1 in a container, has it run COMMAND in CHECKOUT as root, powers it off, and ends with the
# exit status of COMMAND. Where it cannot be booted it says why and ends with 77.
#
# What it may not reach: the root is an overlay of / whose changes are in memory, and so is the checkout; the network is
# its own loopback alone; nothing of the host is writable. Units of the host are masked, but for systemd's own.
set -eu
checkout=$(readlink -f "$1")
shift

cannot() { echo "systemd-test: skipped: $*" >&2; exit 77; }

[ "$(id -u)" = 0 ] || cannot "a container wants root; run: sudo make systemd-test"
command -v systemd-nspawn >/dev/null || cannot "systemd-nspawn is not installed; on Debian: apt install systemd-container"
unshare --mount sh -c 'mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w /mnt/m &&
  mount -t overlay none -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/m' 2>/dev/null ||
  cannot "this machine does not mount an overlay of its root"

export checkout machine=ambara-test-$$
# Without a systemd that hands out cgroups, one is made here, and taken away when the container has ended.
keep_unit=
if [ ! -d /run/systemd/system ]; then
  keep_unit=--keep-unit
  for hierarchy in /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup; do
    [ -e "$hierarchy/cgroup.procs" ] || continue
    { mkdir -p "$hierarchy/$machine/host" && echo $$ >"$hierarchy/$machine/host/cgroup.procs"; } ||
      cannot "no cgroup can be made in $hierarchy"
  done
  leave() {
    for hierarchy in /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup; do
      [ -d "$hierarchy/$machine" ] || continue
      echo $$ >"$hierarchy/cgroup.procs"
      find "$hierarchy/$machine" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
  }
  trap leave EXIT
fi
export keep_unit

# shellcheck disable=SC2016 # expanded in there
unshare --mount --fork --kill-child=KILL bash -euc '
  mount --make-rprivate /
  mount -t tmpfs none /mnt
  root=/mnt/root
  mkdir -p /mnt/{upper,work,checkout,checkout-upper,checkout-work} "$root"
  mount -t overlay none -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work "$root"
  mount -t overlay none -o "lowerdir=$checkout,upperdir=/mnt/checkout-upper,workdir=/mnt/checkout-work" /mnt/checkout
  units=$root/etc/systemd/system

  # Nothing of the host starts in there, and no disk of it is mounted.
  for unit in "$units"/*.wants/* "$root"/lib/systemd/system/{timers,sockets}.target.wants/*; do
    case ${unit##*/} in *journal* | dbus.socket | systemd-initctl.socket) ;; *) ln -sfn /dev/null "$units/${unit##*/}" ;; esac
  done
  for unit in systemd-tmpfiles-{setup,setup-dev,clean} systemd-sysctl systemd-modules-load systemd-udevd \
    systemd-udev-trigger systemd-random-seed systemd-hwdb-update networking apparmor; do
    ln -sfn /dev/null "$units/$unit.service"
  done
  : >"$root/etc/fstab"
  systemd-id128 new >"$root/etc/machine-id"
  echo "$machine" >"$root/etc/hostname"
  mkdir -p "$root/var/log/journal"

  { echo "#!/bin/bash"; printf "exec"; printf " %q" "$@"; } >"$root/etc/ambara-test-command"
  chmod +x "$root/etc/ambara-test-command"
  cat >"$units/ambara-test.service" <<UNIT
[Unit]
Description=What the container was booted for
Wants=dbus.socket
After=basic.target dbus.socket
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
WorkingDirectory=$checkout
ExecStart=/etc/ambara-test-command
Environment=HOME=/root LANG=C.UTF-8 TERM=dumb
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
TimeoutStartSec=infinity
UNIT
  exec systemd-nspawn --quiet --register=no $keep_unit --machine="$machine" --directory="$root" --private-network \
    --bind="/mnt/checkout:$checkout" --link-journal=no --console=read-only --kill-signal=SIGRTMIN+3 \
    --boot systemd.unit=ambara-test.service systemd.show_status=0 systemd.log_target=journal systemd.log_level=warning
' boot "$@"
