"""The replicated store: the whole cluster in memory, read without waiting, written by agreement.

Everything here runs on one event loop. Functions given to `update` are synchronous; the ones that wait run one after
another on a view that includes the earlier ones, become one log entry, and return when it is applied.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol, TypeVar, cast

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.store_pb2 import StoreChange, StoreSnapshotPiece
from swarmcore.api.store_pb2 import Transaction as Entry
from swarmcore.errors import (
    DamagedStateError,
    InternalError,
    LostLeadershipError,
    NotLeaderError,
    ResourceExhaustedError,
    UnavailableError,
)
from swarmcore.store.changes import DEFAULT_CAPACITY, Change, Commit, Publisher, Resync, StatusChange, Subscription
from swarmcore.store.tables import SCHEMAS, Table
from swarmcore.store.transaction import Tables, Transaction, Write

R = TypeVar("R")
Item = TypeVar("Item")

MAX_TRANSACTION_BYTES = 1_572_864
FULL_TRANSACTION_BYTES = MAX_TRANSACTION_BYTES * 3 // 4
MAX_SLICE_SECONDS = 0.010
SNAPSHOT_PIECE_BYTES = 256 * 1024
MAX_WAITING_WRITES = 10_000


class Proposer(Protocol):
    """The way from the store to agreement. Driven by the store's writer, one proposal at a time."""

    @property
    def term(self) -> int:
        """The Raft term in which this manager leads; 0 while it does not lead or has not applied its whole log."""
        ...

    @property
    def next_index(self) -> int:
        """The log index that the next proposal will get."""
        ...

    async def propose(self, data: bytes, token: object) -> None:
        """Return when the entry was applied: `Store.apply` has been called with `token`.

        Raises NotLeaderError when leadership was lost before it was committed; it may still be applied later, then
        without the token. Raises ResourceExhaustedError when the disk takes no more writes.
        """
        ...


@dataclass(slots=True, eq=False)
class _Job:
    term: int | None
    steps: Iterator[Callable[[Transaction], Any]]
    single: bool
    done: asyncio.Future[Any]
    results: list[Any] = field(default_factory=list)

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(self.results[0] if self.single else self.results)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    """What the function that filled a transaction wrote, to be the beginning of the next one."""

    term: int
    writes: list[Write]
    job: _Job


class View(Tables):
    """The applied state, as it is now. Valid until the next `await`."""

    def __init__(self, tables: dict[str, Table[Any]]) -> None:
        for name, table in tables.items():
            setattr(self, name, table)


class Store:
    """Tables, transactions and changes of one manager."""

    def __init__(
        self, proposer: Proposer | None = None, clock: Callable[[], float] = time.time, *, checked: bool = False
    ) -> None:
        """`checked` (for tests) finds objects of the store that somebody changed in place: InternalError."""
        self._checked = checked
        self._tables: dict[str, Table[Any]] = {schema.table: Table(schema, checked=checked) for schema in SCHEMAS}
        self._view = View(self._tables)
        self._publisher = Publisher()
        self._proposer = proposer
        self._clock = clock
        self._jobs: deque[_Job] = deque()
        self._rest: _Rest | None = None
        self._wake = asyncio.Event()
        self._is_stopped = False
        self.version = 0
        """Index of the last applied entry."""

    # Reading

    @property
    def view(self) -> View:
        return self._view

    def subscribe(self, tables: Iterable[str] | None = None, capacity: int = DEFAULT_CAPACITY) -> Subscription:
        """Follow what is applied from now on, of the named tables or of all."""
        return self._publisher.subscribe(tables, capacity)

    # Writing

    def connect(self, proposer: Proposer) -> None:
        """Name the way to agreement, once, before the first write."""
        self._proposer = proposer

    def writer(self, term: int) -> LeaderStore:
        """This store for a component that may write only while this manager leads in `term`."""
        return LeaderStore(self, term)

    async def update(self, write: Callable[[Transaction], R], *, term: int | None = None) -> R:
        """Run `write` in a transaction and return what it returned, once that is durable and applied.

        What `write` raises is raised here, and its changes are taken back. Objects that it read or wrote may be
        returned: they are read-only. Raises NotLeaderError, and ResourceExhaustedError when one function writes more
        than 1.5 MiB or the disk is full. To try again, make the objects again: a refused one keeps its new version.
        """
        job = _Job(term, iter((write,)), True, asyncio.get_running_loop().create_future())
        self._enqueue(job)
        return cast(R, await job.done)

    async def batch(
        self, items: Iterable[Item], write: Callable[[Transaction, Item], object], *, term: int | None = None
    ) -> list[Exception | None]:
        """Run `write` for each item, each atomic, in as few transactions as fit; return what each raised.

        Raises only what concerns the whole batch (NotLeaderError and the like); what was applied by then stays.
        """

        def steps() -> Iterator[Callable[[Transaction], object]]:
            for item in items:
                yield lambda tx, item=item: write(tx, item)  # type: ignore[misc]

        job = _Job(term, steps(), False, asyncio.get_running_loop().create_future())
        self._enqueue(job)
        return cast("list[Exception | None]", await job.done)

    def _enqueue(self, job: _Job) -> None:
        if self._is_stopped:
            raise NotLeaderError("the manager is stopping")
        if len(self._jobs) >= MAX_WAITING_WRITES:
            # While nothing is agreed, those whose callers gave up would stay for as long as that lasts.
            self._jobs = deque(waiting for waiting in self._jobs if not waiting.done.done())
            if len(self._jobs) >= MAX_WAITING_WRITES:
                raise UnavailableError(f"{MAX_WAITING_WRITES} writes wait already: ask again later")
        self._jobs.append(job)
        self._wake.set()

    async def run(self) -> None:
        """Carry writes out, until cancelled. One entry is under way at a time."""
        self._is_stopped = False
        try:
            while True:
                while not self._jobs and self._rest is None:
                    self._wake.clear()
                    await self._wake.wait()
                await self._write_once()
        finally:
            self._is_stopped = True
            self._fail_all(NotLeaderError("the manager is stopping"))

    async def _write_once(self) -> None:
        proposer = self._proposer
        term = proposer.term if proposer is not None else 0
        if proposer is None or not term:
            self._fail_all(NotLeaderError("this manager is not the leader"))
            return
        stamp = Timestamp()
        stamp.FromNanoseconds(int(self._clock() * 1e9))
        transaction = Transaction(self._tables, proposer.next_index, stamp)
        finished: list[_Job] = []
        touched: list[_Job] = []
        self._fill(transaction, term, finished, touched)
        try:
            changes, data = transaction.outcome()
            if changes:
                await proposer.propose(data, _Pending(changes))
            else:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._fail(touched, LostLeadershipError("the manager is stopping"))
            raise
        except Exception as error:  # noqa: BLE001 - handed to every caller that waits for it
            self._fail(touched, error)
            return
        for job in finished:
            job.finish()

    def _fill(self, transaction: Transaction, term: int, finished: list[_Job], touched: list[_Job]) -> None:
        """Run waiting functions until the transaction is full or the slice is used up."""
        rest, self._rest = self._rest, None
        if rest is not None:
            if rest.term == term:
                transaction.resume(rest.writes)
                touched.append(rest.job)
                if rest.job.single:
                    finished.append(rest.job)
            else:
                self._fail([rest.job], NotLeaderError(f"leadership of term {rest.term} is over"))
        unfinished: list[_Job] = []
        deadline = time.monotonic() + MAX_SLICE_SECONDS
        while self._jobs and self._rest is None and not self._is_full(transaction, deadline):
            job = self._jobs.popleft()
            if job.done.done():
                continue
            if job.term is not None and job.term != term:
                job.fail(NotLeaderError(f"leadership of term {job.term} is over"))
                continue
            touched.append(job)
            if self._run_steps(job, transaction, term, deadline):
                finished.append(job)
            elif not job.single:
                unfinished.append(job)
        self._jobs.extend(unfinished)

    @staticmethod
    def _is_full(transaction: Transaction, deadline: float) -> bool:
        return transaction.bytes >= FULL_TRANSACTION_BYTES or time.monotonic() >= deadline

    def _run_steps(self, job: _Job, transaction: Transaction, term: int, deadline: float) -> bool:
        """Run steps of one job; True when it has no more and what it wrote is in this transaction."""
        for ran in count(1):
            try:
                step = next(job.steps, None)
            except Exception as error:  # noqa: BLE001 - the caller's own iterable failed; it is told
                job.fail(error)
                return True
            if step is None:
                return True
            mark, before = transaction.mark, transaction.bytes
            outcome: Any = None
            try:
                result = step(transaction)
                if transaction.bytes - before > MAX_TRANSACTION_BYTES:
                    raise ResourceExhaustedError("the change is larger than a transaction may be (1.5 MiB)")
                if isinstance(result, Coroutine):
                    result.close()
                    raise InternalError("a function that writes the store must not be async")
                if job.single:
                    outcome = result
            except Exception as error:  # noqa: BLE001 - the caller's own function failed; it is told
                transaction.rollback(mark)
                if job.single:
                    job.fail(error)
                    return True
                outcome = error
            job.results.append(outcome)
            if transaction.bytes > MAX_TRANSACTION_BYTES:
                self._rest = _Rest(term=term, writes=transaction.split(mark), job=job)
                return False
            if transaction.bytes >= FULL_TRANSACTION_BYTES or (ran % 16 == 0 and time.monotonic() >= deadline):
                return job.single
        return True

    def _fail(self, jobs: Iterable[_Job], error: Exception) -> None:
        """Tell the callers of jobs that were under way; none of them goes on."""
        for job in jobs:
            job.fail(error)
            if self._rest is not None and self._rest.job is job:
                self._rest = None

    def _fail_all(self, error: Exception) -> None:
        if self._rest is not None:
            self._fail([self._rest.job], error)
        while self._jobs:
            self._jobs.popleft().fail(error)

    # Applying

    def apply(self, index: int, data: bytes, token: object | None = None) -> None:
        """Apply one committed entry. `token` is the one given to `propose` when the entry is this store's own."""
        if isinstance(token, _Pending):
            changes = token.changes
            if self._checked:
                _compare(changes, data)
            for change in changes:
                table = self._tables[change.table]
                if change.new is not None:
                    table.put(change.new, is_status=type(change) is StatusChange)
                else:
                    table.remove(change.id)
        else:
            try:
                changes = tuple([self._replay(change) for change in Entry.FromString(data).changes])
            except DecodeError:
                raise DamagedStateError(
                    f"entry {index} of the log can't be read: use the version that wrote it"
                ) from None
        self.version = index
        self._publisher.publish(Commit(index, changes))

    def check(self) -> None:
        """Raise InternalError when somebody changed an object in place (only of a store made `checked`)."""
        for table in self._tables.values():
            table.check()

    def _replay(self, change: StoreChange) -> Change:
        table = self._tables.get(change.table)
        if table is None:
            raise DamagedStateError(
                f"the log names a table {change.table!r} that this version does not know: use the one that wrote it"
            )
        if change.action == StoreChange.DELETE:
            return Change(change.table, table.remove(change.id), None)
        obj = table.schema.message.FromString(change.object)
        return Change(change.table, table.put(obj), obj)

    # Snapshots

    def snapshot(self) -> Iterator[bytes]:
        """The state as it is now, in pieces of about 256 KiB. Taking it is quick; pieces are encoded when asked for.

        Equal stores give equal bytes.
        """
        frozen = [(name, list(table.all())) for name, table in self._tables.items()]
        return _encode_pieces(frozen)

    def restore(self, index: int, pieces: Iterable[bytes]) -> None:
        """Replace everything by a snapshot; subscribers are told to resync. Raises DamagedStateError."""
        restoring = self.restoring()
        for data in pieces:
            restoring.add(data)
        restoring.finish(index)

    def restoring(self) -> Restoring:
        """Begin to replace everything by a snapshot, a piece at a time; readers see the old state until the end."""
        return Restoring(self._replace, checked=self._checked)

    def _replace(self, index: int, tables: dict[str, Table[Any]]) -> None:
        self._tables = tables
        for name, table in tables.items():
            setattr(self._view, name, table)
        self.version = index
        self._publisher.publish(Resync(index))


class Restoring:
    """A snapshot that is being read, beside the state that it will replace."""

    def __init__(self, replace: Callable[[int, dict[str, Table[Any]]], None], *, checked: bool) -> None:
        self._replace = replace
        self._tables: dict[str, Table[Any]] = {schema.table: Table(schema, checked=checked) for schema in SCHEMAS}

    def add(self, data: bytes) -> None:
        """Take one piece in; about 3 ms of work."""
        try:
            piece = StoreSnapshotPiece.FromString(data)
            table = self._tables.get(piece.table)
            if table is None:
                raise DamagedStateError(
                    f"the snapshot names a table {piece.table!r} that this version does not know: "
                    "use the one that wrote it"
                )
            parse = table.schema.message.FromString
            for raw in piece.objects:
                table.put(parse(raw))
        except DecodeError:
            raise DamagedStateError("a piece of the snapshot can't be read: use the version that wrote it") from None

    def finish(self, index: int) -> None:
        """Put it in place."""
        self._replace(index, self._tables)


def _encode_pieces(frozen: Sequence[tuple[str, Sequence[Any]]]) -> Iterator[bytes]:
    for name, objects in frozen:
        piece, size = StoreSnapshotPiece(table=name), 0
        for obj in objects:
            raw = obj.SerializeToString(deterministic=True)
            piece.objects.append(raw)
            size += len(raw)
            if size >= SNAPSHOT_PIECE_BYTES:
                yield piece.SerializeToString()
                piece, size = StoreSnapshotPiece(table=name), 0
        if size:
            yield piece.SerializeToString()


def _compare(changes: Sequence[Change], data: bytes) -> None:
    """Raise when an object was changed between its write and now: other managers would hold the older one."""
    for change, logged in zip(changes, Entry.FromString(data).changes, strict=True):
        if change.new is not None and change.new != type(change.new).FromString(logged.object):
            raise InternalError(
                f"{change.table} {change.id!r} was changed after it was given to the store: "
                "it is read-only from then on"
            )
        if isinstance(change, StatusChange) and _without_status(change.old) != _without_status(change.new):
            raise InternalError(f"{change.table} {change.id!r}: more than its status was changed")


def _without_status(obj: Any) -> Any:
    rest = type(obj)()
    rest.CopyFrom(obj)
    rest.ClearField("status")
    rest.ClearField("meta")
    return rest


@dataclass(frozen=True, slots=True)
class _Pending:
    changes: tuple[Change, ...]


class LeaderStore:
    """The store for leader-only components: the same reads, and writes that carry the term."""

    def __init__(self, store: Store, term: int) -> None:
        self._store = store
        self.term = term

    @property
    def view(self) -> View:
        return self._store.view

    @property
    def version(self) -> int:
        return self._store.version

    def subscribe(self, tables: Iterable[str] | None = None, capacity: int = DEFAULT_CAPACITY) -> Subscription:
        return self._store.subscribe(tables, capacity)

    async def update(self, write: Callable[[Transaction], R]) -> R:
        return await self._store.update(write, term=self.term)

    async def batch(
        self, items: Iterable[Item], write: Callable[[Transaction, Item], object]
    ) -> list[Exception | None]:
        return await self._store.batch(items, write, term=self.term)
