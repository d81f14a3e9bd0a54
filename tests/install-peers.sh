#!/usr/bin/env bash
# What the tests meet for real: Debian packages, installed when they are missing and the user is root.
set -euo pipefail
wanted=(prometheus:promtool openssl:openssl)
[[ ${1:-} == bench ]] && wanted+=(nginx-light:nginx haproxy:haproxy wrk:wrk)
missing=()
for pair in "${wanted[@]}"; do
    command -v "${pair#*:}" >/dev/null || [[ -x /usr/sbin/${pair#*:} ]] || missing+=("${pair%%:*}")
done
((${#missing[@]})) || exit 0
if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}; install them (Debian: apt-get install ${missing[*]}); tests that need them fail" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# A package must not start its service here: the tests start their own.
[[ -e /usr/sbin/policy-rc.d ]] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; }
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
