#!/usr/bin/env bash
# What the tests meet for real: Debian packages, installed when they are missing and the user is root.
set -euo pipefail
needed=(prometheus:promtool openssl:openssl)                                  # without them tests fail
[[ ${1:-} == bench ]] && needed+=(nginx-light:nginx haproxy:haproxy wrk:wrk)
wished=(prometheus-alertmanager:amtool systemd:systemd-analyze)               # without them tests are skipped, and say so

missing() {
    for pair in "$@"; do
        command -v "${pair#*:}" >/dev/null || [[ -x /usr/sbin/${pair#*:} ]] || echo "${pair%%:*}"
    done
}
mapfile -t first < <(missing "${needed[@]}")
mapfile -t second < <(missing "${wished[@]}")
((${#first[@]} + ${#second[@]})) || exit 0
if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "missing: ${first[*]} ${second[*]}; install them (Debian: apt-get install ${first[*]} ${second[*]})" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# A package must not start its service here: the tests start their own.
[[ -e /usr/sbin/policy-rc.d ]] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; }
apt-get update -qq
((${#first[@]} == 0)) || apt-get install -y -qq --no-install-recommends "${first[@]}" >/dev/null
((${#second[@]} == 0)) || apt-get install -y -qq --no-install-recommends "${second[@]}" >/dev/null \
    || echo "not installed: ${second[*]}; tests that need them are skipped" >&2
