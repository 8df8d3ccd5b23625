"""What the agent remembers over a restart."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
from pathlib import Path

import pytest

from swarmcore.agent import local_state
from swarmcore.agent.local_state import FILE_NAME, LocalState, TaskRecord
from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import TaskState, TaskStatus
from swarmcore.errors import ConfigurationError


def record(task_id: str, state: TaskState.ValueType = TaskState.RUNNING, handle: bytes | None = None) -> TaskRecord:
    return TaskRecord(task=Task(id=task_id, service_id="s"), status=TaskStatus(state=state), handle=handle)


async def opened(folder: Path) -> tuple[LocalState, list[TaskRecord]]:
    state = LocalState(folder)
    return state, await state.open()


async def test_what_was_saved_is_there_after_a_restart(tmp_path: Path) -> None:
    state, records = await opened(tmp_path)
    assert records == []
    state.save(record("a", handle=b"\0h"))
    state.save(record("b"))
    await state.flush()
    state.save(TaskRecord(task=Task(id="b"), status=TaskStatus(), is_removed=True))
    state.save(record("c"))
    state.delete("c")
    await state.aclose()

    again, records = await opened(tmp_path)

    assert records == [record("a", handle=b"\0h"), TaskRecord(task=Task(id="b"), status=TaskStatus(), is_removed=True)]
    await again.aclose()


def names(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def copied(folder: Path, to: Path) -> Path:
    """What a `kill -9` would leave behind now."""
    to.mkdir()
    for file in folder.glob(f"{FILE_NAME}*"):
        shutil.copy(file, to)
    return to


async def test_what_was_flushed_is_in_the_file_without_a_close(tmp_path: Path) -> None:
    state, _ = await opened(tmp_path)
    for number in range(200):
        state.save(record(f"t{number:03}"))
    await state.flush()

    again, records = await opened(copied(tmp_path, tmp_path / "left"))

    assert len(records) == 200
    await again.aclose()
    await state.aclose()


async def test_the_file_needs_no_room_on_the_disk_to_be_opened(tmp_path: Path) -> None:
    state, _ = await opened(tmp_path)
    state.save(record("a"))
    await state.flush()

    assert {file.name for file in names(tmp_path)} == {FILE_NAME, f"{FILE_NAME}-wal"}
    await state.aclose()


async def test_the_file_is_for_the_owner_only(tmp_path: Path) -> None:
    state, _ = await opened(tmp_path / "worker")
    state.save(record("a"))
    await state.flush()

    for path in (tmp_path / "worker").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    await state.aclose()


@pytest.mark.parametrize("junk", [b"this is no database, far from it " * 100, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_a_damaged_file_is_said_and_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, junk: bytes
) -> None:
    (tmp_path / FILE_NAME).write_bytes(junk)

    with caplog.at_level(logging.ERROR):
        state, records = await opened(tmp_path)

    assert records == []
    assert len(caplog.records) == 1 and "is damaged" in caplog.text
    assert (tmp_path / "tasks.damaged").read_bytes() == junk
    state.save(record("a"))
    await state.aclose()
    again, records = await opened(tmp_path)
    assert records == [record("a")]
    await again.aclose()


async def test_a_file_that_another_process_holds_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, _ = await opened(tmp_path)
    state.save(record("a"))
    await state.aclose()
    monkeypatch.setattr(local_state, "LOCK_SECONDS", 0.01)
    other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(ConfigurationError, match=r"locked.*end the other swarmd"):
        await opened(tmp_path)
    other.close()

    again, records = await opened(tmp_path)
    assert records == [record("a")]
    await again.aclose()


async def test_a_record_that_is_no_task_damages_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state, _ = await opened(tmp_path)
    state.save(record("a"))
    await state.aclose()
    writer = sqlite3.connect(tmp_path / FILE_NAME)
    writer.execute("UPDATE tasks SET task = ?", (b"\xff\xff\xff",))
    writer.commit()
    writer.close()

    again, records = await opened(tmp_path)

    assert records == [] and "is damaged" in caplog.text
    await again.aclose()


async def test_a_folder_that_can_not_be_written_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="can't write the agent's state"):
        await LocalState(tmp_path / "file" / "worker").open()


async def test_a_full_disk_holds_nobody_up_and_what_waited_is_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = await opened(tmp_path)
    monkeypatch.setattr("swarmcore.agent.local_state.RETRY_SECONDS", 0.0)
    failures = 3
    write = state._write

    def failing(*arguments: list[object]) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise sqlite3.OperationalError("database or disk is full")
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(state, "_write", failing)
    state.save(record("a"))
    async with asyncio.timeout(5):
        await state.flush()
        while failures >= 0:
            await state.flush()
            await asyncio.sleep(0)
    await state.aclose()

    again, records = await opened(tmp_path)
    assert records == [record("a")]
    assert caplog.text.count("can't write") == 1
    await again.aclose()
