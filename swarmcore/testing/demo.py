"""`make demo`: a manager and two workers on this machine run a service, change it, and lose a node.

Everything shown is real: the command lines are those that run, and the tables are what swarmctl prints.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import UpdateStatus
from swarmcore.testing.demo_stage import Stage, StepError

MANAGER, WORKERS = "manager-1", ("worker-1", "worker-2")
SERVICE = "web"
REPLICAS = 6
PARALLELISM, DELAY = 2, "2s"
READING_SECONDS = 1.0
"""Between steps, where somebody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What the service runs, and what an update makes of it."""

    what: str
    executor: str
    create: tuple[str, ...]
    update: tuple[str, ...]
    engine_addr: str = ""
    ps: tuple[str, ...] = ()
    """A command line that shows the tasks without our help; empty where there is none."""


PROCESSES = Workload(
    what="tasks are plain processes",
    executor="process",
    create=("--runtime", "process", "--command", "sleep", "--args", "1000"),
    update=("--args", "2000"),
)


class Demo:
    """The story, a method a step. Each raises StepError where the cluster does not do what it shows."""

    def __init__(self, console: Console, stage: Stage, workload: Workload) -> None:
        self._console = console
        self._stage = stage
        self._work = workload
        self._number = 0

    def play(self) -> None:
        for step in (self.form, self.create, self.scale, self.update, self.drain, self.remove):
            step()
            if self._console.is_terminal:
                time.sleep(READING_SECONDS)

    def form(self) -> None:
        self._title("Three nodes form a swarm")
        self._stage.command_line("cd", str(self._stage.folder))
        self._stage.show_line("export SWARM_SOCKET=$PWD/swarm.sock")
        self._stage.start_manager(MANAGER)
        for name in WORKERS:
            self._stage.start_worker(name)
        self._stage.wait("not all three nodes are READY", lambda: self._stage.ready_nodes() == 1 + len(WORKERS))
        self._see("each node has a certificate of its own from the manager, and is READY for tasks")
        self._stage.swarmctl("node", "ls")

    def create(self) -> None:
        self._title("A service is made of tasks")
        self._stage.swarmctl("service", "create", "--name", SERVICE, *self._work.create, "--replicas", "2", "--wait")
        self._see("two replicas, on different nodes")
        self._inspect()

    def scale(self) -> None:
        self._title(f"Scale it to {REPLICAS}")
        self._stage.swarmctl("service", "update", SERVICE, "--replicas", str(REPLICAS), "--wait")
        self._see("the new tasks went where there were fewest; the first two were not touched")
        self._inspect()

    def update(self) -> None:
        self._title(f"Update it in parts: {PARALLELISM} tasks at a time, {DELAY} between")
        before = {task.id for task in self._stage.running()}
        parts = ("--update-parallelism", str(PARALLELISM), "--update-delay", DELAY)
        self._stage.swarmctl("service", "update", SERVICE, *self._work.update, *parts)
        self._stage.wait(
            "the update did not replace its first tasks", lambda: len(self._new(before)) >= PARALLELISM and self._full()
        )
        self._see(f"the first {PARALLELISM} are new; the others still run as they did")
        self._stage.swarmctl("service", "inspect", SERVICE)
        with self._console.status(f"two more every {DELAY}, then the manager watches them for a while"):
            self._stage.wait("the update is not done", lambda: len(self._new(before)) == REPLICAS and self._updated())
        self._see(f"all {REPLICAS} are new; their ages tell the parts")
        self._inspect()

    def drain(self) -> None:
        drained = WORKERS[-1]
        self._title(f"Drain {drained}, as before a repair")
        ids = {node.description.hostname: node.id for node in self._stage.nodes()}
        self._stage.swarmctl("node", "drain", drained)
        self._stage.wait(
            f"the tasks of {drained} did not move",
            lambda: self._full() and all(task.node_id != ids[drained] for task in self._stage.running()),
        )
        self._see(f"{drained} is in DRAIN, and its tasks run elsewhere under new ids")
        self._inspect()

    def remove(self) -> None:
        self._title("Remove it")
        self._stage.swarmctl("service", "remove", SERVICE)
        self._stage.wait("the tasks did not end", lambda: not self._stage.running())
        self._stage.swarmctl("service", "ls")

    # What the steps are made of

    def _title(self, text: str) -> None:
        self._number += 1
        self._console.print()
        self._console.print(Rule(Text(f"{self._number}  {text}", style="bold"), align="left", style="cyan"))

    def _see(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(f"→ {text}", style="italic cyan"), soft_wrap=True)

    def _inspect(self) -> None:
        self._stage.swarmctl("node", "ls")
        self._stage.swarmctl("service", "inspect", SERVICE)
        if self._work.ps:
            self._stage.run(*self._work.ps)

    def _new(self, before: set[str]) -> list[Task]:
        return [task for task in self._stage.running() if task.id not in before]

    def _full(self) -> bool:
        return len(self._stage.running()) == REPLICAS

    def _updated(self) -> bool:
        service = self._stage.service(SERVICE)
        return service is not None and service.update_status.state == UpdateStatus.COMPLETED


def run(console: Console, workload: Workload) -> None:
    """Play it once; raises StepError."""
    stage = Stage(console, executor=workload.executor, engine_addr=workload.engine_addr)
    try:
        Demo(console, stage, workload).play()
    except (StepError, KeyboardInterrupt):
        console.print("cleaning up …")
        raise
    finally:
        with _undisturbed():
            stage.close()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave half of it behind; cleaning up takes seconds at most."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 1 with a line on stderr, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m swarmcore.testing.demo", description=__doc__)
    parser.add_argument("--engine", choices=("process", "docker"), default="process", help="what runs the tasks")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace", line_buffering=True)
    console = Console(highlight=False)
    started = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            workload = PROCESSES
            if options.engine == "docker":
                from swarmcore.testing.demo_engine import containers

                workload = stack.enter_context(containers(console))
            console.print(Text.assemble(("swarmcore", "bold"), f": three nodes on this machine; {workload.what}"))
            run(console, workload)
    except StepError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; everything was cleaned up.", file=sys.stderr)
        return 130
    took = time.monotonic() - started
    console.print()
    console.print(
        Text(f"Done in {took:.0f} s, and nothing is left behind. README.md shows your own first cluster."),
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
