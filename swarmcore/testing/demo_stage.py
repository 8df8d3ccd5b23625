"""What the demo plays on: real swarmd processes, real command lines, and nothing left when it ends."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # Read when gRPC is imported; a manager that stops is no news here.

import grpc
from rich.console import Console
from rich.text import Text

from swarmcore.api import control_pb2 as pb
from swarmcore.api.control_pb2_grpc import ControlStub
from swarmcore.api.objects_pb2 import Node, Service, Task
from swarmcore.api.types_pb2 import NodeStatus, TaskState
from swarmcore.testing.ports import free_port

SOCKET = "swarm.sock"
POLL_SECONDS = 0.1
STEP_SECONDS = 20.0
END_SECONDS = 10.0
LONGEST_TEMP_FOLDER = 60
"""The path of a unix socket fits in 108 bytes."""


class StepError(Exception):
    """The cluster did not do what the step shows; the words say what."""


class Stage:
    """A folder with nodes in it. Everything is ended and removed by `close`, however far it came."""

    def __init__(self, console: Console, *, executor: str, engine_addr: str = "") -> None:
        self._console = console
        self._executor = ["--executor", executor, *(["--engine-addr", engine_addr] if engine_addr else [])]
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._channel: grpc.Channel | None = None
        self.folder = _temp_folder()
        self.socket = self.folder / SOCKET
        self.manager_address = f"127.0.0.1:{free_port()}"
        self._environment = {**os.environ, "SWARM_SOCKET": str(self.socket)}

    # What the viewer sees

    def command_line(self, *words: str) -> None:
        """Show what is run, as it would be typed."""
        self.show_line(" \\\n      ".join(_wrapped(words, self._console.width - 8)))

    def show_line(self, text: str) -> None:
        self._console.print(Text.assemble(("$ ", "bold green"), (text, "bold")), soft_wrap=True)
        sys.stdout.flush()

    def start_manager(self, name: str) -> None:
        listen = ["--listen-remote-api", self.manager_address, "--listen-control-api", SOCKET]
        self._start(name, "--accept", "auto", *listen)
        self.wait("the manager does not serve", lambda: bool(self.nodes()))

    def start_worker(self, name: str) -> None:
        self._start(name, "--join-addr", self.manager_address)

    def _start(self, name: str, *flags: str) -> None:
        words = ["swarmd", "-d", name, "--hostname", name, *self._executor, *flags]
        self.command_line(*words, "&")
        with open(self.folder / f"{name}.log", "ab") as log:
            self._nodes[name] = subprocess.Popen(
                [_program("swarmd"), *words[1:]],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def swarmctl(self, *arguments: str) -> None:
        """Run one command, its output before the viewer's eyes; raises StepError where it fails."""
        self.command_line("swarmctl", *arguments)
        try:
            done = subprocess.run(
                [_program("swarmctl"), *arguments],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                timeout=STEP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StepError(f"`swarmctl {shlex.join(arguments)}` did not end in {STEP_SECONDS:g} s") from None
        if done.returncode != 0:
            raise StepError(f"`swarmctl {shlex.join(arguments)}` failed")

    def run(self, *words: str) -> None:
        """Run another command line before the viewer's eyes; what it returns is no concern of the demo."""
        self.command_line(*words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(words, stdin=subprocess.DEVNULL, timeout=STEP_SECONDS, check=False)

    # What the cluster says

    def nodes(self) -> list[Node]:
        """As the manager lists them; none while it does not answer."""
        with contextlib.suppress(grpc.RpcError):
            return list(self._control().ListNodes(pb.ListNodesRequest(), timeout=2).nodes)
        return []

    def ready_nodes(self) -> int:
        return sum(node.status.state == NodeStatus.READY for node in self.nodes())

    def service(self, name: str) -> Service | None:
        with contextlib.suppress(grpc.RpcError):
            return next((each for each in self._services() if each.spec.annotations.name == name), None)
        return None

    def running(self) -> list[Task]:
        """Tasks that run and are wanted."""
        with contextlib.suppress(grpc.RpcError):
            tasks = self._control().ListTasks(pb.ListTasksRequest(), timeout=2).tasks
            return [t for t in tasks if t.status.state == TaskState.RUNNING and t.desired_state == TaskState.RUNNING]
        return []

    def wait(self, problem: str, holds: Callable[[], bool], *, seconds: float = STEP_SECONDS) -> None:
        """Return once `holds`; raises StepError when a node has ended, or nothing came of it in time."""
        deadline = time.monotonic() + seconds
        while not holds():
            for name, process in self._nodes.items():
                if process.poll() is not None:
                    raise StepError(f"{name} ended: {self._last_words(name)}")
            if time.monotonic() > deadline:
                raise StepError(f"{problem} after {seconds:g} s")
            time.sleep(POLL_SECONDS)

    def _last_words(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

    def _control(self) -> ControlStub:
        if self._channel is None:
            options = [("grpc.enable_http_proxy", 0), ("grpc.initial_reconnect_backoff_ms", 100)]
            self._channel = grpc.insecure_channel(f"unix:{self.socket}", options=options)
        return ControlStub(self._channel)

    def _services(self) -> Sequence[Service]:
        return self._control().ListServices(pb.ListServicesRequest(), timeout=2).services

    # The end

    def close(self) -> None:
        """Take the services down, end the nodes and what they left running, remove the folder."""
        try:
            self._remove_services()
            if self._channel is not None:
                self._channel.close()
            for process in self._nodes.values():
                process.terminate()
            deadline = time.monotonic() + END_SECONDS
            for process in self._nodes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(deadline - time.monotonic(), 0.1))
        finally:
            for process in self._nodes.values():
                if process.poll() is None:
                    process.kill()
                    process.wait()
            self._kill_leftovers()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_services(self) -> None:
        """By the manager, while there is one: a node that stops leaves its tasks running."""
        if all(process.poll() is not None for process in self._nodes.values()):
            return
        with contextlib.suppress(grpc.RpcError):
            for service in self._services():
                self._control().RemoveService(pb.RemoveServiceRequest(service_id=service.id), timeout=2)
            deadline = time.monotonic() + END_SECONDS
            while time.monotonic() < deadline:
                if not self._control().ListTasks(pb.ListTasksRequest(), timeout=2).tasks:
                    return
                time.sleep(POLL_SECONDS)

    def _kill_leftovers(self) -> None:
        """What a node that was killed could not end: processes of its tasks work in their folders below ours."""
        deadline = time.monotonic() + END_SECONDS
        while (found := list(_working_below(self.folder))) and time.monotonic() < deadline:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)


def _working_below(folder: Path) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and Path(f"/proc/{entry}/cwd").readlink().is_relative_to(folder):
                yield int(entry)


def _temp_folder() -> Path:
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="swarmcore-demo-", dir=usual if len(usual) < LONGEST_TEMP_FOLDER else "/tmp"))


def _program(name: str) -> str:
    """The one beside this interpreter, else the one in PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise StepError(f"{name} is not installed: run `make setup`")
    return found


def _wrapped(words: Sequence[str], width: int) -> list[str]:
    """The words as they are typed, in lines of at most `width`; a flag and its value stay together."""
    lines = [""]
    quoted = [word if word == "&" else shlex.quote(word) for word in words]
    parts: list[str] = []
    for word in quoted:
        if parts and parts[-1].startswith("--") and " " not in parts[-1] and not word.startswith("-") and word != "&":
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) + 1 > width:
            lines.append(part)
        else:
            lines[-1] += f" {part}" if lines[-1] else part
    return lines
