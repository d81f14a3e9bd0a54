"""
What the benchmark asks: the requests of one workload, as a script for wrk.

    same     GET of one path with the same fields: what a poller or a health check does, and what peers are measured with
    vary     GET where every request has a path, a query and an X-Request-Id of its own: nothing can be remembered whole
    post     POST of 10 KiB
"""

from __future__ import annotations

from typing import Final

UPLOAD_BYTES: Final = 10 * 1024
SHOTS: Final = {
    "same": "",
    "vary": """
local n = 0
request = function()
  n = n + 1
  wrk.headers["X-Request-Id"] = string.format("%08x-%04x", n * 2654435761 % 4294967296, n % 65536)
  return wrk.format("GET", "/api/products/" .. (n * 7919 % 1000003) .. "?page=" .. n)
end
""",
    "post": f"""
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("x", {UPLOAD_BYTES})
""",
}
