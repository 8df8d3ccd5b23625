"""Real Podman services for tests: private folders, a private socket, and a network namespace of their own.

Like `engines.py`, whose image they load. Podman's containers are no children of the service: they outlive it, and the
next one on the same folder finds them. Who is not root gets a rootless service, in the network that is there: tests
that are root become such a user in a room of `rootless.py`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swarmcore.testing.engines import BUSYBOX, IMAGE_COMMAND, busybox_image, missing_namespaces, namespace_of, scratch
from swarmcore.testing.faults import processes
from swarmcore.testing.rootless import missing_ranges, missing_room

START_SECONDS = 60
STOP_SECONDS = 30
CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
events_logger = "file"
cgroup_manager = "cgroupfs"
runtime = "runc"
"""
"""As root in a restricted virtual machine crun refuses hybrid cgroups, and nobody may raise the limits."""
PROGRAMS = ("podman", "runc", "conmon", "catatonit")
REGISTRY_PORT = 5000
"""Of the one registry on loopback that may speak without TLS."""
REGISTRIES = f"""\
[[registry]]
location = "127.0.0.1:{REGISTRY_PORT}"
insecure = true
"""
_numbers = itertools.count(os.getpid() % 200)


def missing_podman() -> str | None:
    """Why no Podman service can be started here by root; None where one can."""
    if os.geteuid() != 0:
        return "starting a Podman service needs root"
    return _missing(PROGRAMS) or missing_namespaces()


def missing_rootless_podman() -> str | None:
    """Why there can be no rootless Podman service here, of this user or, for root, of one in a room."""
    return _missing((*PROGRAMS, "slirp4netns")) or (missing_room() if os.geteuid() == 0 else missing_ranges())


def _missing(programs: Sequence[str]) -> str | None:
    for program in programs:
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not os.access(BUSYBOX, os.X_OK):
        return f"{BUSYBOX} is not installed (busybox-static), and images are made from it"
    return None


@dataclass(slots=True)
class PodmanEngine:
    """A `podman system service` of our own."""

    folder: Path
    namespace: str
    """Of its network; empty: the one that is there."""
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def socket(self) -> Path:
        return self.folder / "podman.sock"

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    @property
    def command(self) -> list[str]:
        """The beginning of every command line that acts on this engine's folders, without its service."""
        folders = (("--root", "data"), ("--runroot", "run"), ("--tmpdir", "tmp"))
        options = [word for option, name in folders for word in (option, str(self.folder / name))]
        enter = ["nsenter", f"--net=/run/netns/{self.namespace}"] if self.namespace else []
        return [*enter, "podman", *options]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
        }

    def podman(self, *arguments: str, stdin: bytes | None = None, check: bool = True, timeout: float = 60) -> str:
        """Run podman on this engine's folders, also while its service is away, and return what it printed."""
        done = subprocess.run(
            [*self.command, *arguments],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            env=self.environment,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"podman {' '.join(arguments)}: {done.stderr.decode().strip()}")
        return done.stdout.decode()

    def containers(self, *, service: str | None = None) -> list[str]:
        """Names of the running containers."""
        arguments = ["ps", "--no-trunc", "--format", "{{.Names}}"]
        if service:
            arguments += ["--filter", f"label=com.docker.swarm.service.name={service}"]
        return self.podman(*arguments).split()

    def import_image(self, *names: str) -> None:
        """Make the busybox image under these names, which mean what they mean to Docker."""
        first, *rest = (f"docker.io/library/{name}" if "/" not in name else name for name in names)
        self.podman("import", "--change", f"CMD {json.dumps(IMAGE_COMMAND)}", "-", first, stdin=busybox_image())
        for name in rest:
            self.podman("tag", first, name)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def answers(self) -> bool:
        """Whether the service answers a ping within five seconds."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: podman\r\nConnection: close\r\n\r\n")
            return b" 200 " in connection.recv(64)
        return False

    @property
    def log(self) -> str:
        """All that it and its predecessors on this folder logged."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start the service, again where it ran before, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "containers.conf").write_text(CONFIGURATION)
        (self.folder / "registries.conf").write_text(REGISTRIES)
        self.socket.unlink(missing_ok=True)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "system", "service", "--time=0", self.address],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=self.folder,
                env=self.environment,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.answers:
                return
            time.sleep(0.05)
        self.stop(kill=True)
        raise RuntimeError(f"podman did not start in {START_SECONDS} s:\n{self.log[-2000:]}")

    def stop(self, *, kill: bool = False) -> None:
        """End the service's process; its containers go on."""
        if self.process.poll() is not None:
            return
        self._send(signal.SIGKILL if kill else signal.SIGTERM)
        if not self._is_gone_within(STOP_SECONDS):
            self._send(signal.SIGKILL)
            if not self._is_gone_within(STOP_SECONDS):
                raise RuntimeError(f"podman's service {self.process.pid} did not end")
        self.socket.unlink(missing_ok=True)

    def _is_gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._is_there():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _send(self, number: signal.Signals) -> None:
        if self.namespace:
            self.process.send_signal(number)
            return
        # A rootless service serves in a child, which may outlive it. Its containers have groups of their own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _is_there(self) -> bool:
        if self.process.poll() is None:
            return True
        if self.namespace:
            return False
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


@contextlib.contextmanager
def podman_engine(*, images: Sequence[str] = ("redis:3.0.5",)) -> Iterator[PodmanEngine]:
    """A Podman engine in a network namespace of its own, with images, gone afterwards."""
    with scratch() as folder, contextlib.ExitStack() as stack:
        name = f"swp{next(_numbers) % 250}"
        namespace_of(stack, name)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True, timeout=20)
        with _serving(PodmanEngine(folder, name), images) as engine:
            yield engine


@contextlib.contextmanager
def rootless_podman_engine(*, images: Sequence[str] = ("redis:3.0.5",)) -> Iterator[PodmanEngine]:
    """This user's Podman engine, which must not be root's, with images; gone afterwards."""
    with scratch() as folder, _serving(PodmanEngine(folder, ""), images) as engine:
        try:
            yield engine
        finally:
            # What belongs to subordinate ids only the user namespace's root can remove.
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                engine.podman("system", "reset", "--force")


@contextlib.contextmanager
def _serving(engine: PodmanEngine, images: Sequence[str]) -> Iterator[PodmanEngine]:
    engine.start()
    try:
        engine.import_image(*images)
        yield engine
    finally:
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            engine.podman("rm", "--all", "--force", "--volumes", "--time=0")
        engine.stop()
        # Who watched a command beside a container waits for five minutes, and then looks for it in folders made anew.
        for left in processes(str(engine.folder / "data")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
