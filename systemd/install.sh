#!/bin/sh
# Installs this checkout as the service `ambara`, or upgrades it: sudo make install-service. May be run at any time: what
# runs goes on running until it is restarted, and when something fails here the installed version stays what it was.
#
#   /opt/ambara/releases/…     a virtual environment for each install
#   /opt/ambara/current        the newest; `previous` is the one before, for the way back
#   /etc/ambara                settings and the key; never written over
#   /usr/local/bin/ambara      the command line, as the service's user
set -eu
umask 022
here=$(cd "$(dirname "$0")/.." && pwd)
opt=/opt/ambara
etc=/etc/ambara
python=$(command -v "${PYTHON:-python3}") || python=

fail() {
  echo "install-service: $*" >&2
  exit 1
}

[ "$(id -u)" = 0 ] || fail "it writes to /opt and /etc; run: sudo make install-service"
[ -d /run/systemd/system ] || fail "systemd does not run here; start the daemon with \`ambara run\` by other means"
[ -n "$python" ] || fail "there is no ${PYTHON:-python3}; on Debian: apt install python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python is older than Python 3.11; name another: sudo make install-service PYTHON=python3.11"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make a virtual environment; on Debian: apt install $(basename "$(readlink -f "$python")")-venv"
# What ProtectHome=yes of the unit hides, by systemd.exec(5).
case $("$python" -c 'import sys; print(sys.base_prefix)')/ in
  /home/* | /root/*) fail "$python lies in a home directory, which a service does not see; name another: sudo make install-service PYTHON=…" ;;
esac

mkdir -p "$opt/releases"
release=$opt/releases/$(date -u +%Y%m%dT%H%M%SZ)
trap 'rm -rf "$release"' EXIT
trap 'exit 130' INT TERM HUP
echo "Installing into $release ..."
"$python" -m venv "$release"
pip() { "$release/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
{ [ -n "${TORCH_CPU:-}" ] && pip install "$TORCH_CPU" 2>/dev/null; } || pip install "$TORCH"
pip install "${here}[fast]"
version=$("$release/bin/ambara" --version) || fail "what was installed does not start"

getent passwd ambara >/dev/null ||
  useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ambara
for group in video render; do # who may use a graphics card, on distributions where not everybody may
  ! getent group "$group" >/dev/null || usermod --append --groups "$group" ambara
done

mkdir -p "$etc"
[ -e "$etc/ambara.toml" ] || install -m 644 "$here/systemd/ambara.toml" "$etc/ambara.toml"
for secret in supabase_service_role_key environment; do
  [ -e "$etc/$secret" ] || install -m 600 /dev/null "$etc/$secret"
done

mkdir "$release/service"
install -m 755 "$here/systemd/ambara.sh" "$here/systemd/activate.sh" "$release/service/"
install -m 644 "$here/systemd/ambara.service" "$release/service/"
trap - EXIT INT TERM HUP
"$release/service/activate.sh"

for old in "$opt"/releases/*; do
  case $old in "$release" | "$(readlink "$opt/previous" || true)") continue ;; esac
  grep -qsF "$old/" /proc/[0-9]*/cmdline || rm -rf "$old"
done

echo "Installed: $version"
if systemctl is-active --quiet ambara; then
  echo "What runs is the version before. Now: sudo ambara doctor, then: sudo systemctl restart ambara"
else
  echo "Now fill $etc/supabase_service_role_key and $etc/ambara.toml, then: sudo ambara doctor"
fi
