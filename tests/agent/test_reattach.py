"""Real processes, a real agent in a process of its own, and SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.process_pb2 import ProcessSpec
from swarmcore.api.types_pb2 import TaskState
from swarmcore.testing.managers import FakeManager, assignments

cgroups = pytest.importorskip("swarmcore_process_executor.cgroups")

AGENT = """
import asyncio, signal, sys
from pathlib import Path
import grpc
from swarmcore.agent.agent import Agent
from swarmcore.agent.connections import RemoteConnections
from swarmcore.agent.remotes import RemotePeer, Remotes
from swarmcore_process_executor.executor import ProcessExecutor

async def main():
    remotes = Remotes()
    remotes.observe(RemotePeer("", sys.argv[1]), 10)
    folder = Path(sys.argv[2])
    executor = ProcessExecutor(folder / "executor")
    agent = Agent(node_id="node", executors={"process": executor}, state_dir=folder,
                  connect=RemoteConnections(remotes, grpc.aio.insecure_channel))
    run = asyncio.ensure_future(agent.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.cancel)
    await asyncio.wait([run])
    await executor.aclose()

asyncio.run(main())
"""


class AgentProcess:
    """An agent that can be killed."""

    def __init__(self, manager: FakeManager, folder: Path) -> None:
        self._manager = manager
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        registrations = len(self._manager.registrations)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", AGENT, self._manager.address, str(self._folder)
        )
        await self._manager.until(lambda: len(self._manager.registrations) > registrations)

    async def end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            await self._process.wait()
            self._process = None

    def pid_of(self, task_id: str) -> int:
        """The process of a task."""
        return int((self._folder / "executor/tasks" / task_id / "started").read_text().splitlines()[1].split()[0])

    def gate_of(self, task_id: str) -> Path:
        return self._folder / "executor/tasks" / task_id / "work/gate"

    def output_of(self, task_id: str) -> str:
        return (self._folder / "executor/tasks" / task_id / "stdout").read_text()

    def leftovers(self) -> list[Path]:
        return list((self._folder / "executor/tasks").iterdir())


@pytest.fixture
async def manager() -> AsyncIterator[FakeManager]:
    manager = FakeManager()
    await manager.start()
    yield manager
    await manager.stop()


@pytest.fixture
async def agent(manager: FakeManager, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    agent = AgentProcess(manager, tmp_path)
    await agent.start()
    yield agent
    await agent.end(signal.SIGKILL)
    manager.everything = assignments(complete=True)
    await agent.start()
    await manager.until(lambda: not agent.leftovers())
    await agent.end(signal.SIGTERM)


def marked(task_id: str) -> list[int]:
    """Every process of a task."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if f"SWARMCORE_TASK_ID={task_id}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def task(task_id: str, script: str) -> Task:
    made = Task(id=task_id, desired_state=TaskState.RUNNING)
    made.spec.generic.kind = "process"
    made.spec.generic.payload.Pack(ProcessSpec(command=["sh", "-c", script]))
    made.status.state = TaskState.ASSIGNED
    return made


async def assign(manager: FakeManager, *tasks: Task) -> None:
    manager.everything = assignments(*tasks, complete=True)
    await manager.until(lambda: manager.assignments)
    manager.assign(*tasks, complete=True)
    for each in tasks:
        await manager.until(lambda each=each: manager.state_of(each.id) == TaskState.RUNNING)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_an_agent_that_ends_and_returns_restarts_no_process(
    manager: FakeManager, agent: AgentProcess, number: int
) -> None:
    await assign(manager, task("a", "exec sleep 600"), task("b", "exec sleep 600"))
    pids = agent.pid_of("a"), agent.pid_of("b")

    await agent.end(number)
    manager.statuses.clear()
    await agent.start()

    await manager.until(lambda: manager.state_of("a") == manager.state_of("b") == TaskState.RUNNING)
    assert (agent.pid_of("a"), agent.pid_of("b")) == pids
    for pid in pids:
        os.kill(pid, 0)


@pytest.fixture
def swept() -> Iterator[None]:
    """Other executors of this machine start all the time, and each removes groups in which nothing runs."""
    is_over = threading.Event()
    found = cgroups.Cgroups.find()

    def sweep() -> None:
        while not is_over.wait(0.001):
            found.sweep(())

    sweeping = threading.Thread(target=sweep)
    sweeping.start()
    yield
    is_over.set()
    sweeping.join()


@pytest.mark.usefixtures("swept")
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2])
async def test_an_agent_that_is_killed_while_it_starts_tasks_starts_each_once(
    manager: FakeManager, agent: AgentProcess, delay: float
) -> None:
    tasks = [task(f"t{number}", "echo once; exec sleep 600") for number in range(12)]
    manager.everything = assignments(*tasks, complete=True)
    await manager.until(lambda: manager.assignments)
    manager.assign(*tasks, complete=True)
    # The moment of death is the point here, not a condition that is waited for.
    await asyncio.sleep(delay)
    await agent.end(signal.SIGKILL)
    for each in tasks:
        each.status.state = max(each.status.state, manager.state_of(each.id))
    manager.everything = assignments(*tasks, complete=True)

    await agent.start()

    await manager.until(lambda: all(manager.state_of(each.id) == TaskState.RUNNING for each in tasks))
    for each in tasks:
        await manager.until(lambda each=each: agent.output_of(each.id) == "once\n")
    assert [len(marked(each.id)) for each in tasks] == [1] * len(tasks)


async def test_a_process_that_ended_without_an_agent_tells_its_true_end(
    manager: FakeManager, agent: AgentProcess
) -> None:
    await assign(manager, task("a", "mkfifo gate; read line <gate; exit 42"))
    await manager.until(agent.gate_of("a").exists)
    await agent.end(signal.SIGKILL)
    await asyncio.to_thread(agent.gate_of("a").write_text, "go\n")

    await agent.start()

    await manager.until(lambda: manager.state_of("a") == TaskState.FAILED)
    assert manager.statuses["a"].err == "task: non-zero exit (42)"
    assert manager.statuses["a"].container.exit_code == 42


async def test_a_task_that_is_no_longer_wanted_after_the_return_is_stopped(
    manager: FakeManager, agent: AgentProcess
) -> None:
    await assign(manager, task("a", "exec sleep 600"))
    pid = agent.pid_of("a")
    await agent.end(signal.SIGKILL)
    manager.everything = assignments(complete=True)

    await agent.start()

    await manager.until(lambda: not agent.leftovers())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
