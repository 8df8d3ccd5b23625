"""What the node remembers of its tasks over a restart: a small SQLite file, written in batches by one thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from swarmcore.api.objects_pb2 import Task
from swarmcore.api.types_pb2 import TaskStatus
from swarmcore.errors import ConfigurationError

log = logging.getLogger("swarmcore.agent")

FILE_NAME: Final = "tasks.sqlite"
MAX_HANDLE_BYTES: Final = 64 * 1024
RETRY_SECONDS: Final = 1.0
LOCK_SECONDS: Final = 5.0
_UNUSABLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
    }
)
"""What SQLite says of the disk, the memory or another process: the file itself may well be in order."""
_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tasks (
    id TEXT PRIMARY KEY, task BLOB NOT NULL, status BLOB NOT NULL, handle BLOB, is_removed INTEGER NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """One task as the agent knows it."""

    task: Task
    """As the manager sent it, without status."""
    status: TaskStatus
    """As this node observed it."""
    handle: bytes | None = None
    """The executor's own note, given back to `Executor.recover`."""
    is_removed: bool = False
    """No longer assigned; what was made for it is still being removed."""


_Row = tuple[str, bytes, bytes, bytes | None, int]


class LocalState:
    """The records of all tasks. What is saved is written soon, many in one transaction, the last of each task wins.

    `kill -9` loses nothing that `flush` has returned for; a loss of power may lose the last second.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="agent-state")
        self._db: sqlite3.Connection | None = None
        self._pending: dict[str, TaskRecord | None] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._is_failing = False

    async def open(self) -> list[TaskRecord]:
        """Open the file and read all records; a damaged file is said and set aside.

        Raises ConfigurationError where the folder can't be written, the disk is full or another process has the file.
        """
        loop = asyncio.get_running_loop()
        records = await loop.run_in_executor(self._thread, self._open)
        self._writer = loop.create_task(self._write_on(), name="agent-state")
        return records

    def save(self, record: TaskRecord) -> None:
        """Write the record soon."""
        self._put(record.task.id, record)

    def delete(self, task_id: str) -> None:
        """Forget the task soon."""
        self._put(task_id, None)

    async def flush(self) -> None:
        """Return when all that was saved before is in the file, or the file can't be written."""
        if not self._pending and not self._waiting:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wake.set()
        await done

    async def aclose(self) -> None:
        """Write what waits, then close. Idempotent."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        await self.flush()
        writer.cancel()
        await asyncio.wait([writer])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _put(self, task_id: str, record: TaskRecord | None) -> None:
        self._pending[task_id] = record
        self._wake.set()

    async def _write_on(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            changes, self._pending = self._pending, {}
            waiting, self._waiting = self._waiting, []
            if changes:
                puts = [_row(record) for record in changes.values() if record is not None]
                gone = [task_id for task_id, record in changes.items() if record is None]
                written = loop.run_in_executor(self._thread, self._write, puts, gone)
                try:
                    await asyncio.shield(written)
                except (sqlite3.Error, OSError) as error:
                    self._on_failure(error, changes)
                else:
                    self._on_success()
            for done in waiting:
                if not done.done():
                    done.set_result(None)
            if self._is_failing:
                await asyncio.sleep(RETRY_SECONDS)

    def _on_failure(self, error: Exception, changes: dict[str, TaskRecord | None]) -> None:
        if not self._is_failing:
            log.error("can't write %s: %s; tasks go on, and it is tried again each second", self._path, error)
        self._is_failing = True
        self._pending = changes | self._pending
        self._wake.set()

    def _on_success(self) -> None:
        if self._is_failing:
            log.info("%s can be written again", self._path)
        self._is_failing = False

    # On the thread

    def _open(self) -> list[TaskRecord]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise ConfigurationError(f"can't write the agent's state {str(self._path)!r}: {error.strerror}") from error
        try:
            return self._load()
        except (sqlite3.DatabaseError, DecodeError, ValueError) as error:
            self._close()
            if isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _UNUSABLE:
                raise ConfigurationError(
                    f"can't use the agent's state {str(self._path)!r} ({error}): free the disk, or end the other swarmd"
                ) from error
            aside = self._path.with_suffix(".damaged")
            log.error("%s is damaged (%s): it is kept as %s, and the managers are asked anew", self._path, error, aside)
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            return self._load()

    def _load(self) -> list[TaskRecord]:
        db = self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=LOCK_SECONDS)
        # Without fsync for each batch: after a loss of power no task runs any more that could be lost sight of.
        # Nobody else reads the file, so the index of its log stays in memory: opening it needs no room on the disk.
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA secure_delete=ON")
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > _SCHEMA_VERSION:
            raise ValueError(f"written by a newer version, format {version}")
        if version < _SCHEMA_VERSION:
            db.execute(_SCHEMA)
            db.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise ValueError(verdict)
        return [
            _record(row) for row in db.execute("SELECT id, task, status, handle, is_removed FROM tasks ORDER BY id")
        ]

    def _write(self, puts: Iterable[_Row], gone: Iterable[str]) -> None:
        db = self._db
        assert db is not None
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?)", puts)
            db.executemany("DELETE FROM tasks WHERE id = ?", ((task_id,) for task_id in gone))
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _row(record: TaskRecord) -> _Row:
    task, status = record.task.SerializeToString(), record.status.SerializeToString()
    return (record.task.id, task, status, record.handle, int(record.is_removed))


def _record(row: _Row) -> TaskRecord:
    task_id, task, status, handle, is_removed = row
    record = TaskRecord(
        task=Task.FromString(task), status=TaskStatus.FromString(status), handle=handle, is_removed=bool(is_removed)
    )
    if record.task.id != task_id:
        raise ValueError(f"record {task_id!r} holds another task")
    return record
