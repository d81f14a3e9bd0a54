#!/usr/bin/env bash
# `make run`: the sidecar, and without UPSTREAM the bundled sample API behind it. Ends both together.
set -euo pipefail
bin=${BIN:-.venv/bin} config=${CONFIG:-config/sidecar.yaml} upstream=${UPSTREAM:-}
if [[ -n $upstream ]]; then
    exec "$bin/sidecar" run -c "$config" --upstream "$upstream"
fi
exec 3< <(exec "$bin/python" -m sidecar.demo.shop)
shop=$!
trap 'kill "$shop" 2>/dev/null || true' EXIT
if ! read -r -t 20 addresses <&3; then
    echo "the sample API did not start; put the sidecar before your own: make run UPSTREAM=http://127.0.0.1:3000" >&2
    exit 1
fi
echo "sample API: $addresses"
"$bin/sidecar" run -c "$config" &
sidecar=$!
trap 'kill -TERM "$sidecar" 2>/dev/null || true' INT TERM
trap 'kill -HUP "$sidecar" 2>/dev/null || true' HUP
code=0
while true; do
    wait "$sidecar" && code=0 || code=$?
    kill -0 "$sidecar" 2>/dev/null || break
done
exit "$code"
