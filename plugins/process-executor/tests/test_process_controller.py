"""Real processes: what a task runs, how it ends, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from swarmcore_process_executor.controller import ProcessController
from swarmcore_process_executor.executor import ProcessExecutor
from swarmcore_process_executor.factory import ProcessFactory
from swarmcore_process_executor.folders import WORK_ROOT
from swarmcore_process_executor.processes import MARKER

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import PortConfig
from swarmcore.plugin.executor import (
    ExitError,
    HostInfo,
    LogOptions,
    LogSource,
    TaskRejectedError,
    TaskStartedError,
    TemporaryError,
)
from swarmcore.testing.process_tasks import NOTHING, eventually, process_task, shell, started


def marked(task_id: str) -> list[int]:
    """Every process that has the task's marker."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARKER}={task_id}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def test_a_program_that_succeeds_is_waited_for(executor: ProcessExecutor) -> None:
    controller = await started(executor, shell("exit 0"))

    await controller.wait()


async def test_the_exit_code_is_told(executor: ProcessExecutor) -> None:
    controller = await started(executor, shell("exit 7"))

    with pytest.raises(ExitError, match=r"non-zero exit \(7\)"):
        await controller.wait()


async def test_a_signal_counts_as_128_and_its_number(executor: ProcessExecutor) -> None:
    controller = await started(executor, shell("kill -KILL $$"))

    with pytest.raises(ExitError) as caught:
        await controller.wait()

    assert caught.value.code == 137


async def test_nothing_of_the_agents_environment_is_inherited(
    executor: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
    controller = await started(executor, shell("env; pwd; umask; echo to stderr >&2", env=["COLOUR=blue"]))

    await controller.wait()

    printed = (tmp_path / "tasks/task1/stdout").read_text()
    names = {line.partition("=")[0] for line in printed.splitlines() if "=" in line}
    assert names == {"PATH", "COLOUR", MARKER, "PWD"}
    assert str(tmp_path / "tasks/task1/work") in printed
    assert (tmp_path / "tasks/task1/stderr").read_text() == "to stderr\n"


async def test_no_file_of_the_agent_is_inherited(executor: ProcessExecutor, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    try:
        controller = await started(executor, shell("ls /proc/self/fd | wc -l; cat /proc/$PPID/comm"))
        await controller.wait()
    finally:
        os.close(read_end)
        os.close(write_end)

    # Three streams, and the folder that `ls` reads.
    assert (tmp_path / "tasks/task1/stdout").read_text().split() == ["4", "sh"]


async def test_a_process_has_a_session_of_its_own_and_no_signal_ignored(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    controller = await started(executor, shell("cut -d' ' -f 1,5,6 /proc/$$/stat; grep SigIgn /proc/$$/status"))

    await controller.wait()

    pid, group, session, _, ignored = (tmp_path / "tasks/task1/stdout").read_text().split()
    assert pid == group == session
    # 32 and 33 are the C library's own: no program can set them, and some ways to start make leave 32 ignored.
    assert int(ignored, 16) & ~(0b11 << 31) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be someone else")
async def test_a_process_runs_as_the_user_it_names(executor: ProcessExecutor, tmp_path: Path) -> None:
    controller = await started(executor, shell("id -u; id -g; id -G; touch mine", user="nobody:daemon"))

    await controller.wait()

    assert (tmp_path / "tasks/task1/stdout").read_text().split() == ["65534", "1", "1"]
    assert (tmp_path / "tasks/task1/work/mine").stat().st_uid == 65534


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (process_task("no-such-program"), "process.command: No such file or directory: 'no-such-program'"),
        (process_task("/etc/passwd"), "process.command: Permission denied: '/etc/passwd'"),
        (process_task("/etc"), "process.command: Is a directory: '/etc'"),
        (process_task("true", dir="/no/such"), "process.dir: No such file or directory: '/no/such'"),
        (process_task("true", dir="/etc/passwd"), "process.dir: Not a directory: '/etc/passwd'"),
        (process_task("true", user="nosuchuser"), "process.user: no such user: 'nosuchuser'"),
        (process_task("true", user="root:nosuchgroup"), "process.user: no such group: 'nosuchgroup'"),
        (process_task("true", user="99999999999"), "process.user: no such user: '99999999999'"),
        (process_task("true", user="²"), "process.user: no such user: '²'"),
        (process_task("true", user="9" * 5000), f"process.user: no such user: {'9' * 200!r}"),
        (process_task("x" * 3000), f"process.command: File name too long: {'x' * 200!r}"),
        (process_task("true", dir="x" * 3000), f"process.dir: File name too long: {'x' * 200!r}"),
        (process_task("true", dir="/" + "x" * 3000), f"process.dir: File name too long: {'/' + 'x' * 199!r}"),
        (process_task("true", user=":daemon"), "process.user: no such user: ''"),
        (process_task("true", user="root:²"), "process.user: no such group: '²'"),
        (
            process_task("true", dir="a/../../b"),
            "process.dir: 'a/../../b' leaves the task's own folder; use an absolute path, or no '..'",
        ),
    ],
)
async def test_what_this_machine_lacks_is_refused_in_the_systems_words_and_leaves_nothing(
    executor: ProcessExecutor, tmp_path: Path, task: Task, words: str
) -> None:
    controller = await executor.controller(task, NOTHING)

    with pytest.raises(TaskRejectedError) as caught:
        await controller.prepare()

    assert str(caught.value) == words
    assert list((tmp_path / "tasks").iterdir()) == []
    assert not WORK_ROOT.exists() or task.id not in {path.name for path in WORK_ROOT.iterdir()}


def _with(change: Callable[[Task], object]) -> Task:
    task = process_task("true")
    change(task)
    return task


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (process_task(), "process.command is empty"),
        (process_task("true", env=["X"]), "process.env 'X' is not NAME=VALUE"),
        (process_task("true", args=["a\0b"]), "process.args has a zero byte"),
        (process_task("true", stop_signal="SIGNOTHING"), "process.stop_signal 'SIGNOTHING' is no signal"),
        (process_task("true", stop_signal="²"), "process.stop_signal '²' is no signal"),
        (process_task("true", stop_grace_seconds=-1), "process.stop_grace_seconds -1 is not between 0 and 3600"),
        (process_task("true", task_id="../evil"), "task.id '../evil' is no name for a folder"),
        (_with(lambda task: task.spec.resources.limits.generic.add()), "task.resources.limits.generic"),
        (_with(lambda task: task.spec.networks.add(target="n")), "task.networks"),
        (_with(lambda task: task.spec.resource_references.add(resource_id="s")), "task.resource_references"),
        (_with(lambda task: task.spec.log_driver.__setattr__("name", "syslog")), "task.log_driver 'syslog'"),
        (
            _with(
                lambda task: task.endpoint.ports.add(target_port=80, published_port=8080, publish_mode=PortConfig.HOST)
            ),
            "endpoint.ports: port 80 can't be published as 8080",
        ),
        (
            _with(lambda task: task.spec.generic.payload.CopyFrom(AnyMessage(type_url="x/other", value=b"x"))),
            "task.generic.payload has type 'x/other'",
        ),
        (
            _with(lambda task: task.spec.generic.payload.__setattr__("value", b"\xff\xff")),
            "task.generic.payload is no swarmcore.v1.ProcessSpec",
        ),
    ],
)
async def test_what_can_not_be_honoured_is_refused_by_its_name(
    executor: ProcessExecutor, task: Task, words: str
) -> None:
    with pytest.raises(TaskRejectedError) as caught:
        await executor.controller(task, NOTHING)

    assert words in str(caught.value)


async def test_a_file_that_is_no_program_is_refused_when_it_starts(executor: ProcessExecutor, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"\x7fELFnot")
    junk.chmod(0o755)
    controller = await executor.controller(process_task(str(junk)), NOTHING)
    await controller.prepare()

    with pytest.raises(TaskRejectedError, match="Exec format error"):
        await controller.start()


async def test_the_stop_signal_reaches_the_whole_group(executor: ProcessExecutor, tmp_path: Path) -> None:
    script = "trap 'echo bye; exit 0' INT; sleep 600 & echo ready; wait"
    controller = await started(executor, shell(script, stop_signal="int"))
    await eventually(lambda: "ready" in (tmp_path / "tasks/task1/stdout").read_text())

    await controller.shutdown()

    await controller.wait()
    assert "bye" in (tmp_path / "tasks/task1/stdout").read_text()
    assert marked("task1") == []


async def test_what_does_not_stop_in_its_grace_period_is_killed(executor: ProcessExecutor, tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while true; do sleep 600; done"
    controller = await started(executor, shell(script, stop_grace_seconds=0.05))
    await eventually(lambda: "ready" in (tmp_path / "tasks/task1/stdout").read_text())

    await controller.shutdown()

    with pytest.raises(ExitError, match="137"):
        await controller.wait()
    assert marked("task1") == []


async def test_what_left_the_group_ends_with_its_task(executor: ProcessExecutor) -> None:
    controller = await started(executor, shell("setsid sleep 600 & exit 0"))

    await controller.wait()

    assert marked("task1") == []


async def test_every_end_may_be_asked_for_again(executor: ProcessExecutor, tmp_path: Path) -> None:
    controller = await executor.controller(process_task("sleep", "600"), NOTHING)
    await controller.shutdown()
    await controller.terminate()
    await controller.remove()
    await controller.prepare()
    await controller.prepare()
    await controller.start()
    with pytest.raises(TaskStartedError):
        await (await executor.controller(process_task("sleep", "600"), NOTHING)).start()

    for _ in range(2):
        await controller.shutdown()
        await controller.terminate()
        await controller.remove()

    assert marked("task1") == []
    assert list((tmp_path / "tasks").iterdir()) == []


async def test_a_wait_that_is_cancelled_can_be_taken_up_again(executor: ProcessExecutor) -> None:
    controller = await started(executor, process_task("sleep", "600"))
    waiting = asyncio.ensure_future(controller.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])

    await controller.terminate()

    with pytest.raises(ExitError, match="137"):
        await controller.wait()


async def test_a_start_that_is_cancelled_makes_one_process(executor: ProcessExecutor, tmp_path: Path) -> None:
    controller = await executor.controller(shell("echo once; exec sleep 600"), NOTHING)
    await controller.prepare()
    starting = asyncio.ensure_future(controller.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])

    await controller.start()

    await eventually(lambda: (tmp_path / "tasks/task1/stdout").read_text() == "once\n")
    assert len(marked("task1")) == 1


async def test_a_start_that_failed_for_now_is_made_anew(
    executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = await executor.controller(process_task("sleep", "600"), NOTHING)
    await controller.prepare()

    def no_process_left(*arguments: object, **options: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with monkeypatch.context() as patched:
        patched.setattr("subprocess.Popen", no_process_left)
        with pytest.raises(TemporaryError):
            await controller.start()

    await controller.start()

    assert len(marked("task1")) == 1


async def test_a_second_launch_leaves_the_first_one_alone(executor: ProcessExecutor, tmp_path: Path) -> None:
    controller = await started(executor, process_task("sleep", "600"))
    assert isinstance(controller, ProcessController)

    said = await asyncio.to_thread(controller._launch)

    assert said == b"already started"
    assert len(marked("task1")) == 1
    assert not (tmp_path / "tasks/task1/exit").exists()


async def test_a_second_executor_finds_what_runs_and_how_it_ends(executor: ProcessExecutor, tmp_path: Path) -> None:
    await started(executor, shell("mkfifo gate; read line <gate; exit 3"))
    later = ProcessExecutor(tmp_path)
    controller = await later.recover(process_task("sh"), None, NOTHING)
    assert controller is not None
    with pytest.raises(TaskStartedError):
        await controller.start()

    await eventually((tmp_path / "tasks/task1/work/gate").exists)
    await asyncio.to_thread((tmp_path / "tasks/task1/work/gate").write_text, "go\n")

    with pytest.raises(ExitError, match=r"\(3\)"):
        await controller.wait()
    await later.aclose()


async def test_a_launch_that_failed_says_why_to_a_second_executor_too(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text("no program at all\n")
    program.chmod(0o755)
    refused = "process.command: Exec format error"
    with pytest.raises(TaskRejectedError, match=refused):
        await started(executor, process_task(str(program)))

    later = ProcessExecutor(tmp_path)
    controller = await later.recover(process_task(str(program)), None, NOTHING)
    assert controller is not None

    with pytest.raises(TaskRejectedError, match=refused):
        await controller.start()
    await later.aclose()


async def test_nothing_is_recovered_of_what_was_never_prepared(executor: ProcessExecutor) -> None:
    assert await executor.recover(process_task("true"), None, NOTHING) is None


async def test_without_its_supervisor_a_task_goes_on_and_its_exit_code_is_unknown(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    controller = await started(executor, process_task("sleep", "600"))
    supervisor = int((tmp_path / "tasks/task1/started").read_text().splitlines()[2].split()[0])
    os.kill(supervisor, signal.SIGKILL)
    waiting = asyncio.ensure_future(controller.wait())
    await asyncio.sleep(0.05)
    assert not waiting.done()

    os.kill(marked("task1")[0], signal.SIGKILL)

    with pytest.raises(ExitError, match="exit code is unknown"):
        await waiting


async def test_a_pid_that_now_belongs_to_another_is_left_alone(executor: ProcessExecutor, tmp_path: Path) -> None:
    controller = await started(executor, process_task("true"))
    await controller.wait()
    other = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    started_file = tmp_path / "tasks/task1/started"
    boot, _, supervisor = started_file.read_text().splitlines()
    started_file.write_text(f"{boot}\n{other.pid} 1\n{supervisor}\n")

    await controller.shutdown()
    await controller.remove()

    assert other.returncode is None
    other.kill()
    await other.wait()


async def test_a_child_that_has_a_supervisors_number_is_not_waited_for(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    controller = await started(executor, process_task("true"))
    await controller.wait()
    other = subprocess.Popen(["sh", "-c", "exit 7"])  # noqa: ASYNC220 - nobody else may wait for it
    await asyncio.to_thread(os.waitid, os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    started_file = tmp_path / "tasks/task1/started"
    boot, process, _ = started_file.read_text().splitlines()
    started_file.write_text(f"{boot}\n{process}\n{other.pid} 1\n")

    await controller.wait()

    assert other.wait() == 7


async def test_lines_are_read_back_and_followed(executor: ProcessExecutor, tmp_path: Path) -> None:
    script = "mkfifo gate; echo one; echo two >&2; read line <gate; echo three; printf four"
    controller = await started(executor, shell(script))
    assert isinstance(controller, LogSource)
    seen = []

    async for line in controller.logs(LogOptions(follow=True)):
        seen.append((line.stream, line.data))
        if line.data == b"one\n":
            gate = tmp_path / "tasks/task1/work/gate"
            await asyncio.to_thread(gate.write_text, "go\n")

    assert (1, b"one\n") in seen and (2, b"two\n") in seen and seen[-1] == (1, b"four")
    tail = [line.data async for line in controller.logs(LogOptions(tail=1, streams=frozenset({1})))]
    assert tail == [b"four"]


async def test_a_start_takes_less_than_a_tenth_of_a_second(executor: ProcessExecutor) -> None:
    times = []
    for number in range(5):
        begin = time.perf_counter()
        await started(executor, process_task("sleep", "600", task_id=f"quick{number}"))
        times.append(time.perf_counter() - begin)

    assert min(times) < 0.1


async def test_the_machine_is_described(executor: ProcessExecutor) -> None:
    description = await executor.describe()

    assert description.platform.os == "linux"
    assert description.resources.nano_cpus >= 1_000_000_000
    assert description.resources.memory_bytes > 0


async def test_the_factory_makes_it_only_where_it_is_named(tmp_path: Path) -> None:
    factory = ProcessFactory()
    host = HostInfo(state_dir=str(tmp_path))

    assert await factory.available(host)
    assert factory.automatic == 0
    executor = await factory.create(host)
    await executor.aclose()
