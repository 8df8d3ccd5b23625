"""The replicated store: the whole cluster in memory, read without waiting, written by agreement.

Everything here runs on one event loop. Functions given to `update` are synchronous; the ones that wait run one after
another on a view that includes the earlier ones, become one log entry, and return when it is applied.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from google.protobuf.timestamp_pb2 import Timestamp

from swarmcore.api.store_pb2 import StoreChange, StoreSnapshotPiece
from swarmcore.api.store_pb2 import Transaction as Entry
from swarmcore.errors import DamagedStateError, NotLeaderError, ResourceExhaustedError
from swarmcore.store.changes import DEFAULT_CAPACITY, Change, Commit, Publisher, Resync, Subscription
from swarmcore.store.tables import SCHEMAS, Table
from swarmcore.store.transaction import Tables, Transaction

R = TypeVar("R")
Item = TypeVar("Item")

MAX_TRANSACTION_BYTES = 1_572_864
FULL_TRANSACTION_BYTES = MAX_TRANSACTION_BYTES * 3 // 4
MAX_SLICE_SECONDS = 0.010
SNAPSHOT_PIECE_BYTES = 256 * 1024


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


@dataclass(slots=True)
class _Job:
    term: int | None
    steps: Iterator[Callable[[Transaction], Any]]
    single: bool
    done: asyncio.Future[Any]
    results: list[Any] = field(default_factory=list)
    exhausted: bool = False


class View(Tables):
    """The applied state, as it is now. Valid until the next `await`."""

    def __init__(self, tables: dict[str, Table[Any]]) -> None:
        for name, table in tables.items():
            setattr(self, name, table)


class Store:
    """Tables, transactions and changes of one manager."""

    def __init__(self, proposer: Proposer | None = None, clock: Callable[[], float] = time.time) -> None:
        self._tables: dict[str, Table[Any]] = {schema.table: Table(schema) for schema in SCHEMAS}
        self._view = View(self._tables)
        self._publisher = Publisher()
        self._proposer = proposer
        self._clock = clock
        self._jobs: deque[_Job] = deque()
        self._wake = asyncio.Event()
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

        What `write` raises is raised here, and its changes are taken back. Raises NotLeaderError, and
        ResourceExhaustedError when one function writes more than 1.5 MiB.
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
        self._jobs.append(job)
        self._wake.set()

    async def run(self) -> None:
        """Carry writes out, until cancelled. One entry is under way at a time."""
        try:
            while True:
                while not self._jobs:
                    self._wake.clear()
                    await self._wake.wait()
                await self._write_once()
        finally:
            for job in self._jobs:
                if not job.done.done():
                    job.done.set_exception(NotLeaderError("the manager is stopping"))
            self._jobs.clear()

    async def _write_once(self) -> None:
        proposer = self._proposer
        if proposer is None or not proposer.term:
            self._fail_all(NotLeaderError("this manager is not the leader"))
            return
        stamp = Timestamp()
        stamp.FromNanoseconds(int(self._clock() * 1e9))
        transaction = Transaction(self._tables, proposer.next_index, stamp)
        finished, touched = self._fill(transaction, proposer.term)
        if transaction.mark:
            pending = _Pending(transaction.changes())
            data = Entry(changes=transaction.encode()).SerializeToString()
            try:
                await proposer.propose(data, pending)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - handed to every caller that waits for it
                for job in touched:
                    if not job.done.done():
                        job.done.set_exception(error)
                    if job in self._jobs:
                        self._jobs.remove(job)
                return
        else:
            await asyncio.sleep(0)
        for job in finished:
            if not job.done.done():
                job.done.set_result(job.results[0] if job.single else job.results)

    def _fill(self, transaction: Transaction, term: int) -> tuple[list[_Job], list[_Job]]:
        """Run waiting functions until the transaction is full or the slice is used up."""
        finished: list[_Job] = []
        touched: list[_Job] = []
        unfinished: list[_Job] = []
        deadline = time.monotonic() + MAX_SLICE_SECONDS
        while self._jobs and not self._is_full(transaction, deadline):
            job = self._jobs.popleft()
            if job.done.done():
                continue
            if job.term is not None and job.term != term:
                job.done.set_exception(NotLeaderError(f"leadership of term {job.term} is over"))
                continue
            touched.append(job)
            if self._run_steps(job, transaction, deadline):
                if not job.done.done():
                    finished.append(job)
            else:
                unfinished.append(job)
        self._jobs.extend(unfinished)
        return finished, touched

    @staticmethod
    def _is_full(transaction: Transaction, deadline: float) -> bool:
        return transaction.bytes >= FULL_TRANSACTION_BYTES or time.monotonic() >= deadline

    def _run_steps(self, job: _Job, transaction: Transaction, deadline: float) -> bool:
        """Run steps of one job; True when it has no more."""
        for ran, step in enumerate(job.steps, start=1):
            mark, before = transaction.mark, transaction.bytes
            outcome: Any = None
            try:
                result = step(transaction)
                if transaction.bytes - before > MAX_TRANSACTION_BYTES:
                    raise ResourceExhaustedError("the change is larger than a transaction may be (1.5 MiB)")
                if job.single:
                    outcome = result
            except Exception as error:  # noqa: BLE001 - the caller's own function failed; it is told
                transaction.rollback(mark)
                if job.single:
                    job.done.set_exception(error)
                    return True
                outcome = error
            job.results.append(outcome)
            if transaction.bytes >= FULL_TRANSACTION_BYTES or (ran % 16 == 0 and time.monotonic() >= deadline):
                return job.single
        return True

    def _fail_all(self, error: Exception) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            if not job.done.done():
                job.done.set_exception(error)

    # Applying

    def apply(self, index: int, data: bytes, token: object | None = None) -> None:
        """Apply one committed entry. `token` is the one given to `propose` when the entry is this store's own."""
        if isinstance(token, _Pending):
            for change in token.changes:
                table = self._tables[change.table]
                if change.new is not None:
                    table.put(change.new)
                else:
                    table.remove(change.id)
            changes: Sequence[Change] = token.changes
        else:
            changes = [self._replay(change) for change in Entry.FromString(data).changes]
        self.version = index
        self._publisher.publish(Commit(index, tuple(changes)))

    def _replay(self, change: StoreChange) -> Change:
        table = self._tables.get(change.table)
        if table is None:
            raise DamagedStateError(f"the log names a table {change.table!r} that this version does not know")
        if change.action == StoreChange.DELETE:
            return Change(change.table, table.remove(change.id), None)
        obj = table.schema.message.FromString(change.object)
        return Change(change.table, table.put(obj), obj)

    # Snapshots

    def snapshot(self) -> Iterator[bytes]:
        """The state as it is now, in pieces of about 256 KiB. Taking it is quick; pieces are encoded when asked for."""
        frozen = [(name, list(table.all())) for name, table in self._tables.items()]
        return _encode_pieces(frozen)

    def restore(self, index: int, pieces: Iterable[bytes]) -> None:
        """Replace everything by a snapshot; subscribers are told to resync."""
        for schema in SCHEMAS:
            fresh: Table[Any] = Table(schema)
            self._tables[schema.table] = fresh
            setattr(self._view, schema.table, fresh)
        for data in pieces:
            piece = StoreSnapshotPiece.FromString(data)
            table = self._tables[piece.table]
            for raw in piece.objects:
                table.put(table.schema.message.FromString(raw))
        self.version = index
        self._publisher.publish(Resync(index))


def _encode_pieces(frozen: Sequence[tuple[str, Sequence[Any]]]) -> Iterator[bytes]:
    for name, objects in frozen:
        piece, size = StoreSnapshotPiece(table=name), 0
        for obj in objects:
            raw = obj.SerializeToString()
            piece.objects.append(raw)
            size += len(raw)
            if size >= SNAPSHOT_PIECE_BYTES:
                yield piece.SerializeToString()
                piece, size = StoreSnapshotPiece(table=name), 0
        if size:
            yield piece.SerializeToString()


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
