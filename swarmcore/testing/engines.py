"""Real Docker Engines for tests: private folders, private sockets, in a network namespace where a test wants a host.

An engine is started by the test that needs it and ended by its own process id. Images are made from busybox, since a
test must not need a registry.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

BUSYBOX = "/bin/busybox"
APPLETS: tuple[str, ...] = (
    *(
        "sh",
        "sleep",
        "echo",
        "cat",
        "httpd",
        "nc",
        "wget",
        "true",
        "false",
        "env",
        "hostname",
        "ls",
        "kill",
        "id",
        "stat",
    ),
    *("touch", "mkdir", "rm", "head", "tail", "seq", "date", "nslookup", "test", "printf", "dd", "yes", "wc", "grep"),
)
IMAGE_COMMAND = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait")
"""Like a server: runs until it is told to stop, and then ends at once, which a bare `sleep` as process 1 does not."""
NO_LINKS: Mapping[str, str] = MappingProxyType({})
START_SECONDS = 60
_numbers = itertools.count(os.getpid() % 200)


def missing_engine() -> str | None:
    """Why no Docker Engine can be started here; None where one can."""
    if os.geteuid() != 0:
        return "starting a Docker Engine needs root"
    for program in ("dockerd", "docker", "iptables", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not os.access(BUSYBOX, os.X_OK):
        return f"{BUSYBOX} is not installed (busybox-static), and images are made from it"
    return None


def missing_namespaces() -> str | None:
    """Why no network namespace can be made here; None where one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        return "ip (iproute2) or nsenter is not installed"
    return None


def busybox_image(links: Mapping[str, str] = NO_LINKS) -> bytes:
    """A root file system of busybox and links to it, as a tar; `links` are further ones, by their paths."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("bin", "tmp", "etc", "run", "var"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        tar.add(BUSYBOX, "bin/busybox")
        for path, target in [*((f"bin/{applet}", "busybox") for applet in APPLETS), *links.items()]:
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


@dataclass(slots=True)
class DockerEngine:
    """A dockerd of our own."""

    folder: Path
    command: Sequence[str]
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def socket(self) -> Path:
        return self.folder / "docker.sock"

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    def docker(self, *arguments: str, stdin: bytes | None = None, check: bool = True, timeout: float = 60) -> str:
        """Run the docker client against this engine and return what it printed."""
        done = subprocess.run(
            ["docker", "-H", self.address, *arguments],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.decode().strip()}")
        return done.stdout.decode()

    def containers(self, *, service: str | None = None) -> list[dict[str, str]]:
        """The running containers as `docker ps` shows them."""
        arguments = ["ps", "--no-trunc", "--format", "{{json .}}"]
        if service:
            arguments += ["--filter", f"label=com.docker.swarm.service.name={service}"]
        return [json.loads(line) for line in self.docker(*arguments).splitlines()]

    def import_image(self, *names: str) -> None:
        """Make the busybox image under these names."""
        first, *rest = names
        self.docker("import", "--change", f"CMD {json.dumps(IMAGE_COMMAND)}", "-", first, stdin=busybox_image())
        for name in rest:
            self.docker("tag", first, name)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        """All that it and its predecessors on this folder logged."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start the process, again where it ran before, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "pid").unlink()
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                self.docker("version", timeout=5)
                return
            time.sleep(0.1)
        self.stop(kill=True)
        raise RuntimeError(f"dockerd did not start in {START_SECONDS} s:\n{self.log[-2000:]}")

    def stop(self, *, kill: bool = False) -> None:
        """End the engine's process; its containers end with it, unless it is killed."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


def start_docker(
    folder: Path, *, namespace: str | None = None, hostname: str = "", extra: Sequence[str] = ()
) -> DockerEngine:
    """Start an engine on `folder` (again, where one ran before) and wait until it answers."""
    command = [
        "dockerd",
        *("--data-root", str(folder / "data")),
        *("--exec-root", str(folder / "exec")),
        *("-H", f"unix://{folder / 'docker.sock'}"),
        *("-p", str(folder / "pid")),
        *extra,
    ]
    if hostname:
        command = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', hostname, *command]
    if namespace:
        command = ["nsenter", f"--net=/run/netns/{namespace}", *command]
    engine = DockerEngine(folder, command)
    engine.start()
    return engine


@contextlib.contextmanager
def docker_engine(*, images: Sequence[str] = ("redis:3.0.5",)) -> Iterator[DockerEngine]:
    """A Docker Engine in the machine's own network namespace, with images, gone afterwards."""
    with scratch() as folder:
        engine = start_docker(folder)
        try:
            engine.import_image(*images)
            yield engine
        finally:
            _end(engine)


def _end(engine: DockerEngine) -> None:
    with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
        if ids := engine.docker("ps", "-aq").split():
            engine.docker("rm", "-fv", *ids)
    engine.stop()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A short folder, since the path of a unix socket must fit in 108 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="swt-"))
    try:
        yield folder
    finally:
        unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


def unmount_below(folder: Path) -> None:
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for path in sorted((p for p in mounted if p.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", path], capture_output=True, check=False)


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of its own: a network namespace with an address, and maybe an engine."""

    name: str
    """Of its network namespace."""
    hostname: str
    """What its engine calls it: docker1, docker2 and so on."""
    address: str
    folder: Path
    engine: DockerEngine | None

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs on this host."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *arguments]


@contextlib.contextmanager
def hosts(count: int, *, engines: bool = True, images: Sequence[str] = ("redis:3.0.5",)) -> Iterator[list[Host]]:
    """Hosts on one bridge, all in namespaces: nothing of the machine's own network is touched."""
    number = next(_numbers) % 250
    prefix = f"swt{number}"
    made: list[Host] = []
    with scratch() as folder, contextlib.ExitStack() as stack:
        switch = f"{prefix}s"
        namespace_of(stack, switch)
        _in(switch, "ip", "link", "add", "br0", "type", "bridge")
        _in(switch, "ip", "link", "set", "br0", "up")
        for index in range(1, count + 1):
            name, address = f"{prefix}h{index}", f"10.{number}.1.{index}"
            namespace_of(stack, name)
            _run(
                "ip", "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", f"p{index}", "netns", switch
            )
            _in(switch, "ip", "link", "set", f"p{index}", "master", "br0", "up")
            _in(name, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
            _in(name, "ip", "link", "set", "eth0", "up")
            _in(name, "ip", "link", "set", "lo", "up")
            engine = None
            own = folder / f"h{index}"
            if engines:
                bridge = ("--bip", f"172.30.{index}.1/24")
                engine = start_docker(own, namespace=name, hostname=f"docker{index}", extra=bridge)
                stack.callback(_end, engine)
                engine.import_image(*images)
            else:
                own.mkdir()
            made.append(Host(name, f"docker{index}", address, own, engine))
        yield made


def namespace_of(stack: contextlib.ExitStack, name: str) -> None:
    """Make a network namespace that is gone with the stack."""
    _run("ip", "netns", "add", name)
    stack.callback(subprocess.run, ["ip", "netns", "del", name], capture_output=True, check=False)


def _in(namespace: str, *command: str) -> None:
    _run("nsenter", f"--net=/run/netns/{namespace}", *command)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
