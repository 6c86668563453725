#!/bin/sh
# Makes the release that this file lies in the one that the service runs from its next start on. As root.
#   sudo /opt/ambara/previous/service/activate.sh     back to the version before
set -eu
opt=/opt/ambara
release=$(cd "$(dirname "$0")/.." && pwd -P)

point() { # $1 to $2, without a moment in between
  ln -sfn "$2" "$1.new"
  mv -T "$1.new" "$1"
}

[ "$(id -u)" = 0 ] || {
  echo "activate: run it with sudo" >&2
  exit 1
}
mkdir -p /usr/local/bin
install -m 755 "$release/service/ambara.sh" /usr/local/bin/ambara
install -m 644 "$release/service/ambara.service" /etc/systemd/system/ambara.service
now=$(readlink "$opt/current" || true)
if [ "$now" != "$release" ]; then
  [ -z "$now" ] || point "$opt/previous" "$now"
  point "$opt/current" "$release"
fi
systemctl daemon-reload
