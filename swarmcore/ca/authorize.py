"""Who calls, and whether they may: in front of every RPC, for the one port and for the control socket.

Identity is the certificate. Nothing is answered before the role table, the cluster, the expiry and the node's
place in the store are checked; what a service raises becomes one gRPC status with one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias

import grpc
from cryptography import x509

from swarmcore.api.caller import Caller, set_caller
from swarmcore.api.metadata import NOT_DONE, OUTCOME, REFUSED, STALE, TIME
from swarmcore.api.roles import is_for_socket_only, may_call
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca.forwarding import (
    BecameLeader,
    Forwarder,
    Metadata,
    NoLeaderError,
    forwarded_caller,
    is_leaders,
    is_read,
    metadata_of,
    outcome,
)
from swarmcore.ca.root import Identity, identity_of
from swarmcore.ca.security import SecurityConfig
from swarmcore.clock import Clock, SystemClock
from swarmcore.errors import (
    InternalError,
    InvalidArgumentError,
    LostLeadershipError,
    NotLeaderError,
    PermissionDeniedError,
    Status,
    SwarmError,
    UnavailableError,
)
from swarmcore.store.store import Store

log = logging.getLogger("swarmcore.ca")

REMEMBERED_CERTIFICATES = 4096
RAFT_SERVICES = ("/swarmcore.v1.Raft", "/docker.swarmkit.v1.Raft")
LONG_CALLS = frozenset({"/docker.swarmkit.v1.NodeCA/NodeCertificateStatus"})
"""Unary, and yet they wait for something that may take days."""
HAND_OVER_SECONDS = 4.5
HAND_OVER_LOOK_SECONDS = 0.02
ONLY_BY_SOCKET = "this call is taken on a manager's control socket only"
STOPPING = "this manager is stopping: ask another one"
_CODES: dict[Status, grpc.StatusCode] = {Status(code.value[0]): code for code in grpc.StatusCode}

Handler = Any
"""What grpc calls an RpcMethodHandler."""
MAX_PASSED = 32
"""Characters of a value that is passed on as it came."""
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Behaviour = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class _Known:
    """One certificate, read."""

    identity: Identity
    not_before: float
    not_after: float


class Interceptor(grpc.aio.ServerInterceptor):
    """Sets the caller, maps errors, and ends long streams when the server stops. What a call needs is up to others."""

    def __init__(self, forward: Forwarder | None = None) -> None:
        """`forward`: the way to the leader, for calls that only it answers; None where this manager is alone."""
        self._forward = forward
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._is_stopping = False

    @abstractmethod
    def authorize(self, method: str, context: Context) -> Caller:
        """Say who calls, if they may; raises PermissionDeniedError."""

    @abstractmethod
    def identify(self, context: Context) -> Caller:
        """Say who calls, whatever they may: the leader decides. Raises PermissionDeniedError."""

    def end_streams(self) -> None:
        """End every RPC that streams or waits, now and later, with UNAVAILABLE: their callers go elsewhere."""
        self._is_stopping = True
        for task in list(self._streams):
            task.cancel()

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(details)
        if handler is None:
            return None  # gRPC answers UNIMPLEMENTED; nothing of ours runs
        method = details.method
        known = self._wrapped.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        wrapped = self._wrap(method, handler)
        self._wrapped[method] = (handler, wrapped)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        if self._forward is not None and is_leaders(method):
            return self._wrap_forwarded(method, handler, self._forward)
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if not handler.request_streaming and not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(
                self._one(method, handler.unary_unary, method in LONG_CALLS), **coders
            )
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(self._one(method, handler.stream_unary, True), **coders)
        if not handler.request_streaming:
            return grpc.unary_stream_rpc_method_handler(self._many(method, handler.unary_stream), **coders)
        return grpc.stream_stream_rpc_method_handler(self._many(method, handler.stream_stream), **coders)

    def _one(self, method: str, inner: Behaviour, is_long: bool) -> Behaviour:
        async def answer(request: Any, context: Context) -> Any:
            try:
                set_caller(self.authorize(method, context))
                if not is_long:
                    return await _settled(inner(request, context))
                with self._stream():
                    return await _settled(inner(request, context))
            except Exception as error:  # noqa: BLE001 - the border: every error becomes a status
                await _refuse(method, context, error)

        return answer

    def _many(self, method: str, inner: Behaviour, write: Callable[[Any], Any] | None = None) -> Behaviour:
        """`write` serialises an answer where gRPC is not to."""

        async def answer(request: Any, context: Context) -> None:
            try:
                set_caller(self.authorize(method, context))
                with self._stream():
                    answers = inner(request, context)
                    if isinstance(answers, Awaitable):
                        await answers
                    elif isinstance(answers, AsyncIterator):
                        async with contextlib.aclosing(answers) as stream:  # type: ignore[type-var]
                            async for message in stream:
                                await context.write(message if write is None else write(message))
                    else:
                        # The generated base classes answer with a plain error before there is anything to iterate.
                        for message in answers:
                            await context.write(message if write is None else write(message))
            except Exception as error:  # noqa: BLE001 - the border: every error becomes a status
                await _refuse(method, context, error)

        return answer

    def _wrap_forwarded(self, method: str, handler: Handler, forward: Forwarder) -> Handler:
        """Answer here while this manager leads, else pass the bytes on as they are."""
        read, write = handler.request_deserializer, handler.response_serializer
        streams = handler.request_streaming
        inner_one = handler.stream_unary if streams else handler.unary_unary
        inner_many = handler.stream_stream if streams else handler.unary_stream

        def requests(data: Any) -> Any:
            return _read_all(read, data) if streams else _read(read, data)

        is_long = streams or method in LONG_CALLS

        async def answer_one(data: Any, context: Context) -> bytes:
            set_caller(self.authorize(method, context))
            with self._stream() if is_long else contextlib.nullcontext():
                return bytes(write(await _settled(inner_one(requests(data), context))))

        def answer_many(data: Any, context: Context) -> Any:
            return inner_many(requests(data), context)

        here_many = self._many(method, answer_many, write)

        async def one(data: Any, context: Context) -> Any:
            deadline = time.monotonic() + HAND_OVER_SECONDS
            try:
                while True:
                    if forward.is_leader:
                        try:
                            return await answer_one(data, context)
                        except NotLeaderError as error:
                            # Where nothing was done, the call goes to whoever leads next.
                            is_lost = streams or isinstance(error, LostLeadershipError)
                            if is_lost or time.monotonic() >= deadline:
                                raise
                            await asyncio.sleep(HAND_OVER_LOOK_SECONDS)
                    passing = self._passing(method, context)
                    with self._stream(), contextlib.suppress(BecameLeader):
                        if streams:
                            return await _only(forward.stream(method, data, passing))
                        return await forward.unary(method, data, passing, context.time_remaining())
            except Exception as error:  # noqa: BLE001 - the border: every error becomes a status
                if not (isinstance(error, NoLeaderError) and is_read(method)):
                    await _refuse(method, context, error)
            context.set_trailing_metadata(((STALE, "true"),))
            try:
                return await answer_one(data, context)
            except Exception as error:  # noqa: BLE001 - as above
                await _refuse(method, context, error)

        async def many(data: Any, context: Context) -> None:
            try:
                while not forward.is_leader:
                    with self._stream(), contextlib.suppress(BecameLeader):
                        answers = forward.stream(method, data, self._passing(method, context))
                        async with contextlib.aclosing(answers) as passed:  # type: ignore[type-var]
                            async for answer in passed:
                                await context.write(answer)
                        return
            except Exception as error:  # noqa: BLE001 - the border: every error becomes a status
                await _refuse(method, context, error)
            await here_many(data, context)

        if streams:
            if handler.response_streaming:
                return grpc.stream_stream_rpc_method_handler(many)
            return grpc.stream_unary_rpc_method_handler(one)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(many)
        return grpc.unary_unary_rpc_method_handler(one)

    def _passing(self, method: str, context: Context) -> Metadata:
        caller = self.identify(context)
        if is_for_socket_only(method) and not caller.is_local:
            raise PermissionDeniedError(ONLY_BY_SOCKET)
        if caller.is_forwarded:
            # Two managers that each think the other leads must not play ball.
            raise NotLeaderError("this manager is not the leader: ask again")
        return (*metadata_of(caller), *_passed_on(context))

    @contextlib.contextmanager
    def _stream(self) -> Iterator[None]:
        """Count the running RPC among those that `end_streams` ends."""
        if self._is_stopping:
            raise UnavailableError(STOPPING)
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
            task.uncancel()
            raise UnavailableError(STOPPING) from None
        finally:
            self._streams.discard(task)


class Authorizer(Interceptor):
    """For the one port: who calls is what the certificate says."""

    def __init__(
        self,
        *,
        security: SecurityConfig,
        store: Store,
        remote_address: Callable[[str], str],
        clock: Clock | None = None,
        forward: Forwarder | None = None,
        check_raft: Callable[[Metadata], None] | None = None,
    ) -> None:
        """`remote_address` gives the IP address behind gRPC's name of a peer; empty where it is not known.

        `check_raft` is shown the metadata of other managers' Raft calls, and refuses by raising a SwarmError. It comes
        before the store is asked: a manager of an old group is told so even where its node is gone.
        """
        super().__init__(forward)
        self._security = security
        self._store = store
        self._remote_address = remote_address
        self._check_raft = check_raft
        self._clock = clock or SystemClock()
        self._certificates: OrderedDict[bytes, _Known] = OrderedDict()

    def authorize(self, method: str, context: Context) -> Caller:
        caller = self.identify(context)
        if caller.role is None:
            if not may_call(method, None):
                raise PermissionDeniedError("unauthorized peer role: this call needs the certificate of a node")
            return caller
        if self._check_raft is not None and caller.role == NodeRole.MANAGER and method.startswith(RAFT_SERVICES):
            self._check_raft(tuple((key, str(value)) for key, value in context.invocation_metadata() or ()))
        role = self._role(caller, method)
        if not may_call(method, role):
            raise PermissionDeniedError(f"unauthorized peer role: a {NodeRole.Name(role).lower()} may not call")
        if is_for_socket_only(method) and not caller.is_forwarded:
            raise PermissionDeniedError(ONLY_BY_SOCKET)
        return caller if role == caller.role else replace(caller, role=role)

    def identify(self, context: Context) -> Caller:
        address = self._remote_address(context.peer())
        pem = context.auth_context().get("x509_pem_cert")
        if not pem:
            return Caller(node_id="", role=None, remote_addr=address)
        known = self._read(next(iter(pem)))
        identity = known.identity
        now = self._clock.now()
        if not known.not_before <= now <= known.not_after:
            raise PermissionDeniedError(f"the certificate of node {identity.node_id} has expired, or is not valid yet")
        if identity.cluster_id != self._security.cluster_id:
            raise PermissionDeniedError(f"node {identity.node_id} belongs to another cluster")
        caller = Caller(
            node_id=identity.node_id, role=identity.role, organization=identity.cluster_id, remote_addr=address
        )
        return self._forwarded(caller, context) if self._forward is not None else caller

    def _forwarded(self, manager: Caller, context: Context) -> Caller:
        """Whom a manager called for; itself where it says nothing."""
        if manager.role != NodeRole.MANAGER:
            return manager
        caller = forwarded_caller(context.invocation_metadata() or ())
        if caller is None:
            return manager
        if self._store_role(manager.node_id) != NodeRole.MANAGER:
            raise PermissionDeniedError(f"node {manager.node_id} is no manager, and may speak for nobody else")
        if caller.role is not None and caller.organization != self._security.cluster_id:
            raise PermissionDeniedError(f"node {caller.node_id} belongs to another cluster")
        return caller

    def _store_role(self, node_id: str) -> NodeRole.ValueType | None:
        node = self._store.view.node.get(node_id)
        return node.role if node is not None else None

    def _role(self, caller: Caller, method: str) -> NodeRole.ValueType:
        """The role that the certificate gives, as far as the store still gives it."""
        view = self._store.view
        node = view.node.get(caller.node_id)
        if node is not None:
            # Who was demoted keeps a manager's certificate until it is renewed or expires.
            return caller.role if node.role == NodeRole.MANAGER and caller.role is not None else NodeRole.WORKER
        # A manager that has just started holds no nodes yet, and learns of them from callers of its Raft service.
        if method.startswith(RAFT_SERVICES) and self._security.cluster_id not in view.cluster:
            return NodeRole.MANAGER if caller.role == NodeRole.MANAGER else NodeRole.WORKER
        raise PermissionDeniedError(f"node {caller.node_id} was removed from swarm")

    def _read(self, pem: bytes) -> _Known:
        known = self._certificates.get(pem)
        if known is not None:
            self._certificates.move_to_end(pem)
            return known
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            identity = identity_of(certificate)
        except (ValueError, SwarmError):
            raise PermissionDeniedError("the certificate does not name one node, one role and one cluster") from None
        known = _Known(
            identity, certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        )
        self._certificates[pem] = known
        if len(self._certificates) > REMEMBERED_CERTIFICATES:
            self._certificates.popitem(last=False)
        return known


class LocalAuthorizer(Interceptor):
    """For the control socket: whoever may open it acts as this node."""

    def __init__(self, security: SecurityConfig, forward: Forwarder | None = None, address: str = "") -> None:
        """`address`: what the leader is told that this node is at; it can't see it through another manager."""
        super().__init__(forward)
        self._security = security
        self._address = address

    def authorize(self, method: str, context: Context) -> Caller:
        caller = self.identify(context)
        role = self._security.role
        if not may_call(method, role):
            raise PermissionDeniedError(f"unauthorized peer role: a {NodeRole.Name(role).lower()} may not call")
        return caller

    def identify(self, context: Context) -> Caller:
        return Caller(
            node_id=self._security.node_id,
            role=self._security.role,
            organization=self._security.cluster_id,
            remote_addr=self._address,
            is_local=True,
        )


def _read(read: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return read(data)
    except Exception:  # noqa: BLE001 - whatever the parser calls it, the request is none
        raise InvalidArgumentError("the request can't be read: it is not of this method's type") from None


async def _read_all(read: Callable[[bytes], Any], data: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for each in data:
        yield _read(read, each)


async def _only(answers: AsyncIterator[bytes]) -> bytes:
    """The one answer to a stream of requests."""
    async with contextlib.aclosing(answers) as passed:  # type: ignore[type-var]
        async for answer in passed:
            return answer
    raise InternalError("the leader ended the call without an answer")


async def _settled(result: Any) -> Any:
    """Await what has to be awaited: handlers of ours do, the generated base classes do not."""
    return await result if isinstance(result, Awaitable) else result


async def _refuse(method: str, context: Context, error: Exception) -> NoReturn:
    """Answer with a status and one line."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    is_undone = isinstance(error, NotLeaderError) and not isinstance(error, LostLeadershipError)
    said = outcome(error) or (NOT_DONE if is_undone else REFUSED)
    context.set_trailing_metadata(((OUTCOME, said),))
    if isinstance(error, SwarmError):
        await context.abort(_CODES.get(error.status, grpc.StatusCode.UNKNOWN), " ".join(str(error).split()))
    if isinstance(error, grpc.aio.AioRpcError):
        await context.abort(error.code(), " ".join((error.details() or "").split()))
    if isinstance(error, NotImplementedError) and context.code() is not None:
        # What the generated base classes do: the status is set already.
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")
    if context.done():
        log.debug("%s: the caller is gone: %s", method, error)
    else:
        log.exception("%s failed", method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "internal error: the manager's log says more")
    raise AssertionError("unreachable")


def _passed_on(context: Context) -> Metadata:
    """What a caller says of itself that the leader is to hear, beside who it is."""
    found = [(key, value) for key, value in context.invocation_metadata() or () if key == TIME]
    return tuple((key, value) for key, value in found[:1] if isinstance(value, str) and len(value) <= MAX_PASSED)
