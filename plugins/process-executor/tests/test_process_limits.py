"""Limits of plain processes: by control groups where the machine has them, and by rlimits."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from swarmcore_process_executor.cgroups import CONTROLLERS, PARENT, Cgroups, Limits, cpu_quota
from swarmcore_process_executor.controller import ProcessController
from swarmcore_process_executor.executor import ProcessExecutor

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.process_pb2 import ProcessUlimit
from swarmcore.plugin import abilities
from swarmcore.plugin.executor import ExecOptions, ExitError, TaskRejectedError
from swarmcore.testing.process_tasks import NOTHING, eventually, process_task, started

MIB = 1 << 20
MACHINE = Cgroups.find()
needs_groups = pytest.mark.skipif(
    not CONTROLLERS.issubset(MACHINE.places), reason="this machine has no cgroups for cpu, memory and pids to give"
)
EATS_MEMORY = "x=$(head -c 200000000 /dev/zero | tr '\\0' x)"


def shell(script: str, *, memory: int = 0, nano_cpus: int = 0, **fields: Any) -> Task:
    task = process_task("sh", "-c", script, task_id=f"limits{os.getpid()}", **fields)
    task.spec.resources.limits.memory_bytes = memory
    task.spec.resources.limits.nano_cpus = nano_cpus
    return task


def printed(tmp_path: Path, task: Task) -> list[str]:
    return (tmp_path / "tasks" / task.id / "stdout").read_text().splitlines()


@needs_groups
async def test_limits_reach_the_kernel_and_commands_beside_the_task(executor: ProcessExecutor) -> None:
    task = shell("sleep 1000", memory=64 * MIB, nano_cpus=500_000_000, pids_limit=20)
    controller = await started(executor, task)
    groups = {name: place / task.id for name, place in MACHINE.places.items()}
    assert isinstance(controller, ProcessController)

    session = await controller.exec(ExecOptions(command=["sh", "-c", "cat /proc/self/cgroup"]))
    said = b"".join([data async for _, data in session.output()]).decode()
    await session.aclose()
    used = await controller.usage()

    assert said.count(f"/{PARENT}/{task.id}") == len(set(groups.values()))
    assert (groups["pids"] / "pids.max").read_text() == "20\n"
    if MACHINE.is_unified:
        assert (groups["memory"] / "memory.max").read_text() == f"{64 * MIB}\n"
        assert (groups["cpu"] / "cpu.max").read_text() == "50000 100000\n"
    else:
        assert (groups["memory"] / "memory.limit_in_bytes").read_text() == f"{64 * MIB}\n"
        assert (groups["cpu"] / "cpu.cfs_quota_us").read_text() == "50000\n"
    assert used.memory_limit_bytes == 64 * MIB


@needs_groups
async def test_a_program_that_takes_too_much_memory_is_said_to_have(executor: ProcessExecutor) -> None:
    controller = await started(executor, shell(EATS_MEMORY, memory=16 * MIB))

    with pytest.raises(ExitError, match=r"non-zero exit \(\d+\): out of memory"):
        await controller.wait()


@needs_groups
async def test_more_processes_than_allowed_can_not_be_made(executor: ProcessExecutor, tmp_path: Path) -> None:
    task = shell("for i in 1 2 3 4 5 6; do sleep 1000 & done; echo all", pids_limit=3)
    controller = await started(executor, task)

    with pytest.raises(ExitError):
        await controller.wait()

    assert "all" not in printed(tmp_path, task)


@needs_groups
async def test_what_hides_from_its_task_ends_with_it_and_no_group_is_left(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    task = shell("env -i setsid sleep 1000 >/dev/null 2>&1 & echo $!; sleep 1000")
    controller = await started(executor, task)
    await eventually(lambda: printed(tmp_path, task))
    assert len(MACHINE.pids(task.id)) >= 2

    await controller.shutdown()
    hidden = MACHINE.pids(task.id)
    await controller.remove()

    assert hidden == set()
    assert not any(folder.exists() for folder in MACHINE.folders(task.id))


@needs_groups
async def test_groups_are_gone_with_what_ran_and_the_reason_is_kept(executor: ProcessExecutor) -> None:
    task = shell(EATS_MEMORY, memory=16 * MIB)
    controller = await started(executor, task)
    with pytest.raises(ExitError):
        await controller.wait()

    found = await executor.recover(task, None, NOTHING)

    assert not any(folder.exists() for folder in MACHINE.folders(task.id))
    assert found is not None
    with pytest.raises(ExitError, match="out of memory"):
        await found.wait()


@needs_groups
async def test_groups_that_nobody_answers_for_are_swept(tmp_path: Path) -> None:
    lost = f"lost{os.getpid()}"
    busy = shell("sleep 1000")
    one = ProcessExecutor(tmp_path / "one")
    controller = await started(one, busy)
    MACHINE.make(lost, Limits())

    await ProcessExecutor(tmp_path).aclose()
    left = [any(folder.exists() for folder in MACHINE.folders(name)) for name in (lost, busy.id)]
    await controller.remove()
    await one.aclose()

    assert left == [False, True]


async def test_ulimits_hold_for_the_program_and_commands_beside_it(executor: ProcessExecutor, tmp_path: Path) -> None:
    task = shell(
        "ulimit -n; ulimit -Hn; ulimit -c; sleep 1000",
        ulimits=[ProcessUlimit(name="nofile", soft=100, hard=200), ProcessUlimit(name="core", soft=0, hard=0)],
    )
    controller = await started(executor, task)
    assert isinstance(controller, ProcessController)

    session = await controller.exec(ExecOptions(command=["sh", "-c", "ulimit -n"]))
    said = b"".join([data async for _, data in session.output()])
    await session.aclose()

    assert said == b"100\n"
    await eventually(lambda: len(printed(tmp_path, task)) == 3)
    assert printed(tmp_path, task) == ["100", "200", "0"]


async def test_a_limit_that_can_not_be_set_is_named(executor: ProcessExecutor) -> None:
    # The kernel's own highest number of open files is far below.
    controller = await executor.controller(
        shell("true", ulimits=[ProcessUlimit(name="nofile", soft=1 << 40, hard=1 << 40)]), NOTHING
    )
    await controller.prepare()

    with pytest.raises(TaskRejectedError, match=r"^process\.ulimits: nofile=1099511627776:1099511627776: "):
        await controller.start()


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (ProcessUlimit(name="nosuch"), "process.ulimits: 'nosuch' is none of as, core, "),
        (ProcessUlimit(name="core", soft=2, hard=1), "core has a soft limit above the hard one"),
        (ProcessUlimit(name="core", soft=-1, hard=1), "core has a soft limit above the hard one"),
        (ProcessUlimit(name="core", soft=-2, hard=-2), "core cannot be negative"),
    ],
)
async def test_an_ulimit_that_is_none_is_refused(executor: ProcessExecutor, limit: ProcessUlimit, words: str) -> None:
    with pytest.raises(TaskRejectedError, match=words):
        await executor.controller(shell("true", ulimits=[limit]), NOTHING)


async def test_without_groups_memory_is_limited_for_each_process_and_the_rest_is_refused(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    def bare(task: Task) -> ProcessController:
        return ProcessController(executor._pool, executor._noter, tmp_path / "tasks" / task.id, task)

    for task, field in (
        (shell("true", nano_cpus=10**9), r"task\.resources\.limits\.nano_cpus: .* 'cpu'"),
        (shell("true", pids_limit=7), r"process\.pids_limit: .* 'pids'"),
    ):
        with pytest.raises(TaskRejectedError, match=field):
            await bare(task).prepare()
    limited = shell("ulimit -d", memory=64 * MIB)
    controller = bare(limited)
    await controller.prepare()
    await controller.start()
    await controller.wait()

    assert printed(tmp_path, limited) == [str(64 * 1024)]


async def test_a_node_states_the_limits_that_it_can_keep(tmp_path: Path) -> None:
    executor = ProcessExecutor(tmp_path)
    try:
        plugins = (await executor.describe()).engine.plugins
    finally:
        await executor.aclose()

    (stated,) = (plugin.name.split(",") for plugin in plugins if plugin.type == abilities.PLUGIN_TYPE)
    assert ("limits" in stated) == ("cpu" in MACHINE.places)
    assert ("pids-limit" in stated) == ("pids" in MACHINE.places)
    assert "ulimits" in stated


@pytest.mark.parametrize(
    ("nano_cpus", "quota"),
    [
        (500_000_000, (50_000, 100_000)),
        (2_500_000_000, (250_000, 100_000)),
        (1_000_000, (1_000, 1_000_000)),
        (1, (1_000, 1_000_000)),
    ],
)
def test_a_share_of_a_cpu_is_a_quota_that_the_kernel_takes(nano_cpus: int, quota: tuple[int, int]) -> None:
    assert cpu_quota(nano_cpus) == quota


def test_version_2_is_told_in_its_own_words(tmp_path: Path) -> None:
    place = tmp_path / PARENT
    groups = Cgroups(places=dict.fromkeys(CONTROLLERS, place), is_unified=True)
    (place / "t").mkdir(parents=True)
    for name in ("memory.max", "memory.swap.max"):
        (place / "t" / name).touch()

    made = groups.make("t", Limits(nano_cpus=10**9, memory_bytes=64 * MIB, pids=9))
    (place / "t" / "memory.events").write_text("low 0\noom_kill 1\n")

    assert made == [place / "t"]
    told = {path.name: path.read_text() for path in (place / "t").iterdir() if path.name != "memory.events"}
    assert told == {
        "cpu.max": "100000 100000",
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(64 * MIB),
        "pids.max": "9",
    }
    assert groups.was_out_of_memory("t")


def test_a_parent_group_that_somebody_removed_is_made_anew(tmp_path: Path) -> None:
    groups = Cgroups(places={"pids": tmp_path / PARENT})

    with groups.held():
        made = groups.make("t", Limits())

    assert made == [tmp_path / PARENT / "t"] and made[0].is_dir()


def test_groups_are_held_by_whoever_inherits_the_hold_and_swept_after_that(tmp_path: Path) -> None:
    groups = Cgroups(places={"cpu": tmp_path / "cpu" / PARENT, "pids": tmp_path / "pids" / PARENT})
    made = [place / "t" for place in groups.places.values()]
    for each in made:
        each.mkdir(parents=True)

    with groups.held() as hold:
        heir = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stderr=hold)
    groups.sweep(kept=())
    assert all(each.is_dir() for each in made)

    heir.communicate(timeout=10)
    groups.sweep(kept=["t"])
    assert all(each.is_dir() for each in made)
    groups.sweep(kept=())
    assert not any(each.exists() for each in made)


def test_hierarchies_are_found_by_their_mounts(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"31 23 0:28 / {tmp_path} rw - tmpfs tmpfs rw\n"
        f"32 31 0:29 / {tmp_path}/a\\040b rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
        f"33 31 0:30 / {tmp_path}/none rw - cgroup cgroup rw,pids\n"
    )
    (tmp_path / "a b").mkdir()

    found = Cgroups.find(str(mounts))

    assert found.places == ({"cpu": tmp_path / "a b" / PARENT} if os.geteuid() == 0 else {})
