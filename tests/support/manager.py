"""
A real systemd as pid 1 of namespaces of its own: the unit runs with all its hardening, without touching the machine.

The root is an overlay over the machine's, thrown away with the mount namespace; devices, /proc/sys and /sys are its own
or read only, and nothing but a journal and the unit is started. The interpreter and these sources are mounted below
/opt, because the unit hides /root and /home and has a /tmp of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.patience import WAIT_S
from tests.support.sidecar import until

ROOT: Final = Path(__file__).parents[2]
CONTROL: Final = Path("/sys/fs/cgroup")
INIT: Final = Path("/lib/systemd/systemd")
OVERLAY: Final = """
mount -t tmpfs -o mode=0755 none /mnt &&
mkdir /mnt/upper /mnt/work /mnt/root &&
mount -t overlay none -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
"""
SITE: Final = next(path for path in sys.path if path.endswith("site-packages"))


def missing() -> str:
    """Return why no manager can be started here; empty when one can."""
    if os.geteuid() != 0:
        return "only root may start a systemd in namespaces"
    if not INIT.exists() or shutil.which("systemctl") is None:
        return "systemd is not installed (Debian: apt-get install systemd)"
    if not all((CONTROL / name).is_dir() for name in ("systemd", "unified")):
        return "the control groups here are not the hybrid ones that this test knows how to hand over"
    tried = subprocess.run(
        ["unshare", "-m", "-p", "-f", "-C", "sh", "-c", OVERLAY],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "" if tried.returncode == 0 else f"no overlay in a namespace here: {tried.stderr.strip()}"


def script(folder: Path, unit: str, config: str) -> str:
    """Return the shell script that builds the root and becomes systemd."""
    alone = re.sub(r"^(Wants|After)=.*$", "", unit, flags=re.MULTILINE).replace(
        "[Unit]", "[Unit]\nDefaultDependencies=no"
    )
    (folder / "sidecar.service").write_text(alone)
    (folder / "sidecar.yaml").write_text(config)
    python = Path(os.path.realpath(sys.executable)).name
    (folder / "sidecar").write_text(
        "#!/bin/sh\n"
        "export PYTHONPATH=/opt/sidecar/sources:/opt/sidecar/site LD_LIBRARY_PATH=/opt/sidecar/python/lib\n"
        f'exec /opt/sidecar/python/bin/{python} -m sidecar "$@"\n'
    )
    return f"""
set -eu
{OVERLAY}
cd /mnt/root
mkdir -p opt/sidecar/bin opt/sidecar/python opt/sidecar/site opt/sidecar/sources/sidecar etc/sidecar
mount --bind {sys.base_prefix} opt/sidecar/python
mount --bind {SITE} opt/sidecar/site
mount --bind {ROOT}/sidecar opt/sidecar/sources/sidecar
install -m 0755 {folder}/sidecar opt/sidecar/bin/sidecar
install -m 0644 {folder}/sidecar.yaml etc/sidecar/sidecar.yaml
install -m 0644 {folder}/sidecar.service etc/systemd/system/sidecar.service
rm -rf etc/systemd/system/*.wants
printf '[Unit]\\nDefaultDependencies=no\\nRequires=systemd-journald.service\\nAfter=systemd-journald.service\\n' \\
    > etc/systemd/system/alone.target
mount -t proc none proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t tmpfs -o mode=0755 none dev
for device in null zero full random urandom tty; do
    touch dev/"$device"
    mount --bind /dev/"$device" dev/"$device"
done
mkdir dev/shm dev/pts
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 none dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 none dev/pts
mount -t tmpfs -o mode=0755 none run
mount -t sysfs -o ro none sys
mount -t tmpfs -o mode=0755 none sys/fs/cgroup
mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd none sys/fs/cgroup/systemd
mount -t cgroup2 none sys/fs/cgroup/unified
mount --make-rshared /
exec chroot . /usr/bin/env -i container=namespaces PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    {INIT} --system --unit=alone.target --log-target=console
"""


class Manager:
    """
    One systemd with the sidecar's unit loaded; use it as a context.

    Args:
        unit: The unit's text.
        config: What it finds as /etc/sidecar/sidecar.yaml.
    """

    def __init__(self, unit: str, config: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="systemd-"))
        # Of every hierarchy, because systemd mounts and uses them all; a new group of cpuset takes nobody in.
        hierarchies = {path.resolve() for path in CONTROL.iterdir() if path.is_dir()} - {CONTROL / "cpuset"}
        self._groups = [path / self.folder.name for path in sorted(hierarchies)]
        for group in self._groups:
            group.mkdir()
        joins = "; ".join(f"echo $$ > {group}/cgroup.procs" for group in self._groups)
        text = script(self.folder, unit, config)
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", f'{joins}; exec unshare -m -p -f -C -u -i --kill-child sh -c "$1"', "sh", text],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def __enter__(self) -> Self:
        try:
            until(self._boots, f"systemd boots; it said: {(self.folder / 'log').read_text(errors='replace')}")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with contextlib.suppress(OSError, LookupError):
                sys.stderr.write(self.run("journalctl", "--no-pager", "-o", "cat", "-n", "60").stdout)
        self.end()

    def _boots(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text(errors="replace")
        with contextlib.suppress(LookupError):
            return self.run("systemctl", "is-active", "alone.target").stdout.strip() == "active"
        return False

    def end(self) -> None:
        """Kill it, which ends all in its pid namespace, and remove its control groups."""
        self.process.kill()
        self.process.wait()
        for group in self._groups:
            until(lambda group=group: _removed(group), f"{group} is empty")  # type: ignore[misc]
        shutil.rmtree(self.folder, ignore_errors=True)

    def _pid_1(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        if not children:
            raise LookupError("systemd has not begun yet")
        return int(children[0])

    def run(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command beside its systemd."""
        inside = ["nsenter", "-t", str(self._pid_1()), "-m", "-p", "-u", "-i", "-C", "-r", "-w", *words]
        return subprocess.run(inside, input=stdin, capture_output=True, text=True, timeout=WAIT_S, check=False)

    def systemctl(self, *words: str) -> str:
        """Run systemctl, require its success, and return what it printed."""
        done = self.run("systemctl", *words)
        assert done.returncode == 0, done.stderr + self.run("journalctl", "--no-pager", "-o", "cat", "-n", "40").stdout
        return done.stdout.strip()

    def shown(self, name: str) -> str:
        """Return a property of the unit."""
        return self.systemctl("show", "--value", "-p", name, "sidecar")

    def writes(self, path: str, text: str) -> None:
        """Write a file that its processes see."""
        done = self.run("sh", "-c", f'mkdir -p "$(dirname {path})" && cat > {path}', stdin=text)
        assert done.returncode == 0, done.stderr


def _removed(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106  of a control group only the folder itself can be removed
    return not group.exists()
