"""
A sidecar under the constraints of a container, without an engine: what the kernel offers, and util-linux.

The root file system is a tmpfs with read-only bind mounts of this interpreter and these sources, remounted read only;
only the state and /tmp can be written. The sidecar is pid 1 of its own pid namespace, an unprivileged user of group
65532 without capabilities, and cannot gain any. The network is the machine's, so that tests can reach it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.patience import WAIT_S
from tests.support.sidecar import tied, until

ROOT = Path(__file__).parents[2]
USER = 65532
HOMELESS = "PATH=/usr/bin:/bin LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1"


def missing() -> str:
    """Return why no cell can be made here; empty when one can."""
    if os.geteuid() != 0:
        return "only root may make mount and pid namespaces"
    if absent := [tool for tool in ("unshare", "setpriv", "chroot", "mount") if shutil.which(tool) is None]:
        return f"missing: {', '.join(absent)} (Debian: apt-get install util-linux coreutils)"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"no namespaces here: {tried.stderr.decode().strip()}"


def shown() -> list[str]:
    """Return the folders that a process needs to run these sources with this interpreter; none lies in another one."""
    wanted = sorted({Path("/usr"), Path(sys.base_prefix), Path(sys.prefix), ROOT}, key=lambda path: len(path.parts))
    kept: list[Path] = []
    for path in wanted:
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return [str(path) for path in kept]


def script(root: str, config: Path, words: Sequence[str], environ: str) -> str:
    """Return the shell script that builds the root, locks it and becomes the sidecar."""
    return f"""
set -eu
mount -t tmpfs -o mode=0755 none {root}
for path in /var/lib/sidecar /tmp; do
    mkdir -p {root}"$path"
    mount -t tmpfs -o mode=2777,gid={USER} none {root}"$path"
done
for path in {" ".join(map(shlex.quote, shown()))}; do
    mkdir -p {root}"$path"
    mount --bind "$path" {root}"$path"
    mount -o remount,bind,ro {root}"$path"
done
for link in /bin /sbin /lib /lib64; do
    if [ -L "$link" ]; then cp -P "$link" {root}"$link"; fi
done
mkdir -p {root}/etc/sidecar {root}/proc {root}/dev
cp /etc/ld.so.cache {root}/etc/
mount --bind {shlex.quote(str(config))} {root}/etc/sidecar
mount -o remount,bind,ro {root}/etc/sidecar
mount -t proc none {root}/proc
for device in null zero urandom; do
    touch {root}/dev/"$device"
    mount --bind /dev/"$device" {root}/dev/"$device"
done
mount -o remount,ro {root}
exec chroot {root} /usr/bin/setpriv --reuid={USER} --regid={USER} --clear-groups --bounding-set=-all --inh-caps=-all \\
    --no-new-privs --pdeathsig=KILL /usr/bin/env -i {HOMELESS} PYTHONPATH={shlex.quote(str(ROOT))} {environ} {shlex.join(words)}
"""


class Cell:
    """
    One confined sidecar; use it as a context.

    Args:
        config: The folder that it sees as /etc/sidecar; `sidecar.yaml` in it is its file.
        environ: Further variables, as `env` takes them.
    """

    def __init__(self, config: Path, environ: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cell-"))
        (self.folder / "root").mkdir()
        words = [sys.executable, "-m", "sidecar", "run", "-c", "/etc/sidecar/sidecar.yaml"]
        text = script(str(self.folder / "root"), config, words, f"SIDECAR__STATE=/var/lib/sidecar {environ}")
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "sh", "-c", text],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=tied,  # noqa: PLW1509  one call into libc, which is loaded already
            )  # fmt: skip

    def __enter__(self) -> Self:
        try:
            until(lambda: self._ended() or self.said("worker-0 is ready"), "a worker is ready")
            assert not self._ended(), self.log()
            until(lambda: self._ended() or self.said("the controller serves"), "the controller serves")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            sys.stderr.write(f"\n--- what it said\n{self.log()[-8000:]}\n")
        self.end()

    def _ended(self) -> bool:
        return self.process.poll() is not None

    def end(self) -> None:
        """Kill what lives of it; its mounts go with its namespace."""
        if not self._ended():
            self.process.kill()  # and so pid 1, which asked for it, and with pid 1 its whole namespace
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """Return what it wrote."""
        return (self.folder / "log").read_text(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """Return its log lines."""
        rows = []
        for line in self.log().splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
        return rows

    def said(self, words: str, after: int = 0) -> dict[str, Any] | None:
        """Return the first line from the line *after* on whose event contains *words*."""
        return next((row for row in self.events()[after:] if words in str(row.get("event"))), None)

    def address(self, listener: str) -> str:
        """Return where it listens."""
        row = self.said("sidecar starts")
        assert row is not None, self.log()
        return str(row[listener])

    def supervisor(self) -> int:
        """Return the supervisor's pid, as this side of the namespace sees it."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def pids(self) -> list[int]:
        """Return the pids of the supervisor and of its children."""
        first = self.supervisor()
        return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]

    def leave(self) -> int:
        """Send SIGTERM to the supervisor and return the exit code."""
        os.kill(self.supervisor(), signal.SIGTERM)
        return self.process.wait(WAIT_S)


def mounted(volume: Path, version: int, text: str) -> Path:
    """Put *text* where kubelet puts a ConfigMap: behind the symbolic link `..data`, swapped in one step."""
    volume.chmod(0o755)
    folder = volume / f"..2026_01_01_{version}"
    folder.mkdir(parents=True)
    (folder / "sidecar.yaml").write_text(text, encoding="utf-8")
    (volume / "..data_tmp").symlink_to(folder.name)
    (volume / "..data_tmp").rename(volume / "..data")
    file = volume / "sidecar.yaml"
    if not file.is_symlink():
        file.symlink_to("..data/sidecar.yaml")
    return file


def status(pid: int) -> dict[str, str]:
    """Return /proc/PID/status by name."""
    rows: Iterator[list[str]] = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, value in rows}
