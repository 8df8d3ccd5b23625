"""Asking a manager for a certificate: the request, then the status until there is an answer (SwarmKit: 10.3)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from swarmcore.api.ca_pb2 import GetUnlockKeyRequest, IssueNodeCertificateRequest, NodeCertificateStatusRequest
from swarmcore.api.ca_pb2_grpc import CAStub, NodeCAStub
from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import IssuanceStatus, NodeRole
from swarmcore.ca.channels import words_of
from swarmcore.clock import Clock
from swarmcore.errors import ConfigurationError, UnavailableError

log = logging.getLogger("swarmcore.ca")

CALL_SECONDS = 5.0
STATUS_PAUSE_SECONDS = 1.0
MAX_STATUS_PAUSE_SECONDS = 30.0
REMINDER_SECONDS = 300.0

REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
)


class RefusedError(ConfigurationError):
    """The manager will not give this node a certificate, however often it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest:
    """What a node asks for."""

    csr: bytes
    token: str = ""
    role: NodeRole.ValueType = NodeRole.WORKER
    availability: NodeSpec.Availability.ValueType = NodeSpec.ACTIVE


async def ask(channel: grpc.aio.Channel, request: CertificateRequest) -> tuple[str, bool]:
    """Hand the request in; returns the node id, and whether the node is accepted already.

    Raises RefusedError, and UnavailableError when asking again can help.
    """
    message = IssueNodeCertificateRequest(
        role=request.role, csr=request.csr, token=request.token, availability=request.availability
    )
    try:
        answer = await NodeCAStub(channel).IssueNodeCertificate(message, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() in REFUSALS:
            raise RefusedError(words_of(error)) from None
        raise UnavailableError(words_of(error)) from None
    return answer.node_id, answer.node_membership == NodeSpec.ACCEPTED


async def wait_certificate(
    channel: grpc.aio.Channel, *, node_id: str, csr: bytes, clock: Clock, is_waiting: Callable[[], object]
) -> bytes:
    """The certificate chain for `csr`, waiting for as long as the manager has not decided.

    `is_waiting` is called now and then meanwhile, for a line in the log. Raises RefusedError when the node was
    rejected or removed, UnavailableError when the manager is gone.
    """
    stub = NodeCAStub(channel)
    pause = STATUS_PAUSE_SECONDS
    next_reminder = clock.monotonic() + STATUS_PAUSE_SECONDS
    while True:
        started = clock.monotonic()
        try:
            answer = await stub.NodeCertificateStatus(
                NodeCertificateStatusRequest(node_id=node_id), timeout=CALL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise RefusedError("the cluster rejected this node, or waited too long for it") from None
            if error.code() in REFUSALS:
                raise RefusedError(words_of(error)) from None
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise UnavailableError(words_of(error)) from None
            if clock.monotonic() >= next_reminder:
                is_waiting()
                next_reminder = clock.monotonic() + REMINDER_SECONDS
        else:
            if answer.status.state == IssuanceStatus.FAILED:
                raise RefusedError(f"the manager could not sign: {answer.status.err}")
            is_issued = answer.status.state in (IssuanceStatus.ISSUED, IssuanceStatus.ROTATE)
            if is_issued and answer.certificate.csr == csr and answer.certificate.certificate:
                return answer.certificate.certificate
        # A blocking answer has waited already; one that came at once and did not help is not asked for in a hurry.
        if clock.monotonic() - started < STATUS_PAUSE_SECONDS:
            await clock.sleep_until(started + pause)
            pause = min(pause + STATUS_PAUSE_SECONDS, MAX_STATUS_PAUSE_SECONDS)


async def is_unknown(channel: grpc.aio.Channel, node_id: str) -> bool:
    """Whether the leader says that it knows no such node; False also where there is no answer."""
    try:
        await NodeCAStub(channel).NodeCertificateStatus(
            NodeCertificateStatusRequest(node_id=node_id), timeout=CALL_SECONDS
        )
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.NOT_FOUND
    return False


async def fetch_unlock_key(channel: grpc.aio.Channel) -> bytes | None:
    """What managers lock their disks with, None where they don't; closes `channel`, on which a manager is known.

    Raises RefusedError and UnavailableError.
    """
    try:
        answer = await CAStub(channel).GetUnlockKey(GetUnlockKeyRequest(), timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() in REFUSALS:
            raise RefusedError(words_of(error)) from None
        raise UnavailableError(words_of(error)) from None
    finally:
        await close_quietly(channel)
    return answer.unlock_key or None


async def close_quietly(channel: grpc.aio.Channel) -> None:
    """Close a channel whatever it was doing."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            await channel.close()
    except TimeoutError:
        log.debug("a channel did not close in time")
