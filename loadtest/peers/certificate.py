"""The certificate that all peers show when they terminate TLS: made for one run, signed by itself."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: certificate, key, and both in one."""

    certificate: Path
    key: Path
    both: Path


def make_certificate(folder: Path) -> Certificate:
    """Make one for 127.0.0.1 with a key on P-256, the usual kind of certificate on the web."""
    made = Certificate(folder / "bench.crt", folder / "bench.key", folder / "bench.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "2", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1",
               "-keyout", str(made.key), "-out", str(made.certificate)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"openssl made no certificate:\n{done.stderr}")
    made.both.write_bytes(made.certificate.read_bytes() + made.key.read_bytes())
    return made
