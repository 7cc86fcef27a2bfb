#!/bin/sh
# Installs what the tests need beside Python packages, if it is missing: Debian's Chromium, Redis and PostgreSQL.
# Root is asked for only then; no service is started.
set -eu

have() {
    command -v "$1" >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1
}

missing=
have chromium || missing="$missing chromium"
have redis-server || missing="$missing redis-server"
{ have initdb && have postgres; } || missing="$missing postgresql"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "The tests need these programs, install them with your system's package manager:$missing" >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    root=
elif sudo -n true 2>/dev/null; then
    root="sudo -n"
else
    echo "The tests need programs that are missing:$missing. Run this first, as root:" >&2
    echo "    apt-get update && apt-get install --yes --no-install-recommends$missing" >&2
    exit 1
fi

# Packages start their services while they are installed, unless this file says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$root rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
    $root chmod 755 "$policy"
fi
$root apt-get update --quiet=2
# shellcheck disable=SC2086  # several packages
$root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends $missing

for program in chromium redis-server initdb postgres; do
    have "$program" || { echo "$program is still missing after the installation of$missing" >&2; exit 1; }
done
