"""Simulated workers: they join over the wire like any node, and report every task as RUNNING as fast as they can.

Each has its own key, certificate and TLS connection, one Session, one Assignments stream and its heartbeats. Reports
of a worker are batched: one call at a time, with everything that came meanwhile. The same fleet serves both managers.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.h2 import CallError, Connection, Identity, Method, OnEnd, OnMessage, connect, connect_unverified, method
from swarmcore.api.ca_pb2 import (
    GetRootCACertificateRequest,
    GetRootCACertificateResponse,
    IssueNodeCertificateRequest,
    IssueNodeCertificateResponse,
    NodeCertificateStatusRequest,
    NodeCertificateStatusResponse,
)
from swarmcore.api.dispatcher_pb2 import (
    AssignmentChange,
    AssignmentsMessage,
    AssignmentsRequest,
    HeartbeatRequest,
    HeartbeatResponse,
    SessionMessage,
    SessionRequest,
)
from swarmcore.api.types_pb2 import IssuanceStatus, NodeDescription, NodeRole, TaskState, TaskStatus

_PACKAGE = "/docker.swarmkit.v1."
ROOT = method(_PACKAGE + "CA/GetRootCACertificate")
ISSUE = method(_PACKAGE + "NodeCA/IssueNodeCertificate")
STATUS = method(_PACKAGE + "NodeCA/NodeCertificateStatus")
SESSION = method(_PACKAGE + "Dispatcher/Session")
HEARTBEAT = method(_PACKAGE + "Dispatcher/Heartbeat")
ASSIGNMENTS = method(_PACKAGE + "Dispatcher/Assignments")
REPORT = method(_PACKAGE + "Dispatcher/UpdateTaskStatus")

JOINING_AT_ONCE = 8
"""Half of the calls that a manager takes at once from who has no certificate: an answered one may still count."""
JOIN_SECONDS = 300.0
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Target:
    """A manager to join."""

    host: str
    port: int
    token: str


class WorkerConnection(Protocol):
    """What a worker needs of its connection."""

    def call(self, method: Method, message: bytes, on_message: OnMessage, on_end: OnEnd) -> None: ...
    def close(self) -> None: ...


Connect = Callable[[str, int, Identity, str], Awaitable[WorkerConnection]]
"""Host, port, identity, server name."""


@dataclass(slots=True)
class Counts:
    """What the whole fleet has seen; `on_change` is called when a report was acknowledged."""

    assigned: int = 0
    running: int = 0
    """RUNNING reports acknowledged by the manager."""
    calls: int = 0
    messages: int = 0
    last: float = 0.0
    errors: list[str] = field(default_factory=list)
    waiting: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)

    def add_running(self, count: int) -> None:
        self.running += count
        self.last = time.monotonic()
        for target, future in self.waiting:
            if self.running >= target and not future.done():
                future.set_result(None)

    async def wait_running(self, total: int) -> None:
        """Return when so many RUNNING reports were acknowledged in all."""
        if self.running >= total:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((total, future))
        try:
            await future
        finally:
            self.waiting = [entry for entry in self.waiting if entry[1] is not future]


class Worker:
    """One node."""

    def __init__(self, number: int, counts: Counts) -> None:
        self.number = number
        self.node_id = ""
        self._counts = counts
        self._connection: WorkerConnection | None = None
        self._session_id = ""
        self._head = b""
        self._seen: dict[str, int] = {}
        self._queue: list[tuple[str, int]] = []
        self._is_reporting = False
        self._heartbeat: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def start(self, target: Target, identity: Identity, connect: Connect) -> None:
        """Open the session and the streams; return when the first assignments have come."""
        connection = self._connection = await connect(target.host, target.port, identity, "swarm-manager")
        loop = asyncio.get_running_loop()
        first: asyncio.Future[None] = loop.create_future()

        def on_session(data: bytes) -> None:
            if not self._session_id:
                self._on_registered(SessionMessage.FromString(data).session_id)
                connection.call(
                    ASSIGNMENTS, AssignmentsRequest(session_id=self._session_id).SerializeToString(), *watch
                )
                self._beat()

        def on_assignments(data: bytes) -> None:
            self._on_assignments(data)
            if not first.done():
                first.set_result(None)

        def on_end(error: str) -> None:
            self._fail(error or "the manager ended a stream")
            if not first.done():
                first.set_exception(CallError(error or "the manager ended a stream"))

        watch = (on_assignments, on_end)
        request = SessionRequest(description=_description(self.number)).SerializeToString()
        connection.call(SESSION, request, on_session, on_end)
        await first

    def _on_registered(self, session_id: str) -> None:
        self._session_id = session_id
        raw = session_id.encode()
        self._head = b"\x0a" + bytes((len(raw),)) + raw

    def _beat(self) -> None:
        if self._is_closed or self._connection is None:
            return
        request = HeartbeatRequest(session_id=self._session_id).SerializeToString()
        self._connection.call(HEARTBEAT, request, self._on_heartbeat, self._on_call_end)

    def _on_heartbeat(self, data: bytes) -> None:
        period = HeartbeatResponse.FromString(data).period
        seconds = period.seconds + period.nanos / 1e9
        self._heartbeat = asyncio.get_running_loop().call_later(seconds, self._beat)

    def _on_call_end(self, error: str) -> None:
        if error:
            self._fail(error)

    def _on_assignments(self, data: bytes) -> None:
        self._counts.messages += 1
        for change in AssignmentsMessage.FromString(data).changes:
            assignment = change.assignment
            if assignment.WhichOneof("item") != "task":
                continue
            task = assignment.task
            if change.action == AssignmentChange.REMOVE:
                self._seen.pop(task.id, None)
                continue
            wanted = TaskState.RUNNING if task.desired_state <= TaskState.RUNNING else TaskState.SHUTDOWN
            known = self._seen.get(task.id, 0)
            if known < wanted and task.status.state < wanted:
                if not known:
                    self._counts.assigned += 1
                self._seen[task.id] = wanted
                self._queue.append((task.id, wanted))
        if self._queue and not self._is_reporting:
            self._report()

    def _report(self) -> None:
        connection = self._connection
        if connection is None or self._is_closed:
            return
        batch, self._queue = self._queue, []
        running = sum(state == TaskState.RUNNING for _, state in batch)
        message = self._head + b"".join([_update(task_id, state) for task_id, state in batch])
        self._is_reporting = True
        self._counts.calls += 1

        answered = False

        def on_answer(_: bytes) -> None:
            nonlocal answered
            answered = True
            self._is_reporting = False
            self._counts.add_running(running)
            if self._queue:
                self._report()

        def on_end(error: str) -> None:
            if not answered:
                self._fail(error or "a report was refused")

        connection.call(REPORT, message, on_answer, on_end)

    def _fail(self, error: str) -> None:
        if not self._is_closed:
            self._counts.errors.append(f"worker {self.number}: {error}")

    def close(self) -> None:
        """Go without a word."""
        self._is_closed = True
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if self._connection is not None:
            self._connection.close()


_STATUS: dict[int, bytes] = {}


def _update(task_id: str, state: int) -> bytes:
    """One element of `updates`, serialised."""
    status = _STATUS.get(state)
    if status is None:
        text = "started" if state == TaskState.RUNNING else "shutdown"
        made = TaskStatus(state=TaskState.ValueType(state), message=text)
        made.timestamp.GetCurrentTime()
        status = _STATUS[state] = made.SerializeToString()
    raw = task_id.encode()
    update = b"\x0a" + bytes((len(raw),)) + raw + b"\x12" + bytes((len(status),)) + status
    assert len(update) < 128
    return b"\x1a" + bytes((len(update),)) + update


def _description(number: int) -> NodeDescription:
    description = NodeDescription(hostname=f"simulated-{number}")
    description.platform.os = "linux"
    description.platform.architecture = "x86_64"
    description.resources.nano_cpus = 64 * 10**9
    description.resources.memory_bytes = 256 * 2**30
    description.engine.engine_version = "simulated"
    return description


class Fleet:
    """Many workers in this process."""

    def __init__(self, connect: Connect = connect) -> None:
        self.counts = Counts()
        self.workers: list[Worker] = []
        self._connect = connect

    async def join(self, target: Target, count: int, progress: Callable[[int], None] | None = None) -> None:
        """Add so many workers: certificates by token, then sessions. Raises CallError when one is refused."""
        raise_file_limit(3 * count + 200)
        root = await _fetch_root(target)
        authority = await connect(target.host, target.port, Identity(root), "swarm-ca")
        gate = asyncio.Semaphore(JOINING_AT_ONCE)
        done = 0

        async def add(number: int) -> None:
            nonlocal done
            async with gate:
                worker = Worker(number, self.counts)
                identity = await self._certify(worker, authority, target, root)
                await worker.start(target, identity, self._connect)
                self.workers.append(worker)
                done += 1
                if progress is not None:
                    progress(done)

        base = len(self.workers)
        async with asyncio.timeout(JOIN_SECONDS), asyncio.TaskGroup() as group:
            for number in range(base, base + count):
                group.create_task(add(number))
        authority.close()

    async def _certify(self, worker: Worker, authority: Connection, target: Target, root: bytes) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        ask = IssueNodeCertificateRequest(
            role=NodeRole.WORKER, csr=request.public_bytes(Encoding.PEM), token=target.token
        )
        issued = IssueNodeCertificateResponse.FromString(await authority.unary(ISSUE, ask.SerializeToString()))
        worker.node_id = issued.node_id
        query = NodeCertificateStatusRequest(node_id=issued.node_id).SerializeToString()
        while True:
            answer = NodeCertificateStatusResponse.FromString(await authority.unary(STATUS, query))
            if answer.status.state == IssuanceStatus.ISSUED:
                break
            if answer.status.state == IssuanceStatus.FAILED:
                raise CallError(f"no certificate: {answer.status.err}")
            await asyncio.sleep(0.05)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Identity(root, answer.certificate.certificate, private)

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()


async def _fetch_root(target: Target) -> bytes:
    """The root certificate, believed since its digest is in the token."""
    connection = await connect_unverified(target.host, target.port)
    try:
        answer = await connection.unary(ROOT, GetRootCACertificateRequest().SerializeToString())
    finally:
        connection.close()
    root = GetRootCACertificateResponse.FromString(answer).certificate
    if _base36(hashlib.sha256(root).digest()) != target.token.split("-")[-2]:
        raise CallError("the manager's root certificate is not the one that the token names")
    return root


def _base36(digest: bytes) -> str:
    number, digits = int.from_bytes(digest, "big"), ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits.rjust(50, "0")


def raise_file_limit(wanted: int) -> None:
    """Let this process have so many files open; raises OSError where the machine does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        if os.geteuid() != 0:
            raise OSError(f"{wanted} open files are needed and {hard} allowed: raise it (ulimit -n {wanted})")
        hard = wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
