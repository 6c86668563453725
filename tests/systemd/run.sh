#!/bin/bash
# usage: run.sh CHECKOUT PYTHON TORCH...
# Carries out `make systemd-test`: fetches what an installation wants (of the builds of PyTorch the first that can be
# had), since the container has no network, and runs these tests in there. SYSTEMD_TEST: further arguments of pytest.
# Where no container can be booted it says why, and that is no failure.
set -eu
checkout=$1 python=$1/$2
shift 2
boot=$checkout/tests/systemd/boot.sh
wheels=$checkout/.ambara/wheels

# The container sees this machine's disk, and an installation on it would pass for its own.
for place in /opt/ambara /etc/ambara /var/lib/ambara /var/cache/ambara; do
  [ ! -e "$place" ] || { echo "systemd-test: $place is there: try it on a machine on which Ambara is not installed" >&2; exit 1; }
done

"$boot" "$checkout" true || {
  [ $? = 77 ] || echo "systemd-test: skipped: the container does not boot; what systemd-nspawn said stands above" >&2
  exit 0
}

for torch in "$@" none; do
  [ "$torch" != none ] || { echo "systemd-test: the packages cannot be downloaded" >&2; exit 1; }
  rm -rf "$wheels" # half a file of a download that was cut off would be taken for a whole one
  "$python" -m pip --disable-pip-version-check download --quiet --dest "$wheels" "$torch" "${checkout}[fast]" 'hatchling>=1.25' && break
done
"$python" -c 'from daemon.local.node import packages; packages(print)'
# shellcheck disable=SC2086 # several words
exec "$boot" "$checkout" env PIP_FIND_LINKS="$wheels" PYTHONDONTWRITEBYTECODE=1 \
  "$python" -m pytest -vv -p no:xdist "$checkout/tests/systemd" ${SYSTEMD_TEST:-}
