#!/bin/sh
# The command line of the installed service: with its settings, its key, its directories, as its user. As root:
#   sudo ambara status
[ "$(id -u)" = 0 ] || {
  echo "ambara: the service's key is root's; run: sudo ambara $*" >&2
  exit 78
}
umask 077
# As systemd reads it: what stands behind the first = is the value.
if [ -r /etc/ambara/environment ]; then
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      [A-Za-z_]*=*) export "${line?}" ;;
    esac
  done </etc/ambara/environment
fi
# In the environment of this one process, which only its user and root can read.
if [ -z "${SUPABASE_SERVICE_ROLE_KEY:-}" ] && [ -s /etc/ambara/supabase_service_role_key ]; then
  SUPABASE_SERVICE_ROLE_KEY=$(cat /etc/ambara/supabase_service_role_key)
  export SUPABASE_SERVICE_ROLE_KEY
fi
for place in /var/lib/ambara /var/cache/ambara; do # systemd makes them as well, when the service starts
  [ -d "$place" ] || install -d -m 700 -o ambara -g ambara "$place"
done
export AMBARA_SERVICE=1 AMBARA_CONFIG="${AMBARA_CONFIG:-/etc/ambara/ambara.toml}" STATE_DIRECTORY=/var/lib/ambara
export HOME=/var/lib/ambara XDG_CACHE_HOME=/var/cache/ambara HF_HOME="${HF_HOME:-/var/cache/ambara/huggingface}"
as_ambara() { exec setpriv --reuid=ambara --regid=ambara --init-groups --inh-caps=-all --no-new-privs "$@"; }
(as_ambara test -x .) || cd / # somebody's home is closed to the service's user
as_ambara /opt/ambara/current/bin/ambara "$@"
