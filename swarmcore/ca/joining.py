"""A first certificate: whom to trust, then who this node is; a kill between the steps loses none (SwarmKit: 10.3)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import grpc

from swarmcore.api.specs_pb2 import NodeSpec
from swarmcore.api.types_pb2 import NodeRole
from swarmcore.ca import channels, request
from swarmcore.ca.files import CertificateFolder, JoinAttempt
from swarmcore.ca.root import RootCA, new_csr, new_key
from swarmcore.ca.tokens import parse_join_token
from swarmcore.clock import Clock
from swarmcore.errors import ConfigurationError, InvalidArgumentError, UnavailableError
from swarmcore.plugin.acceptance import JoinMethod

log = logging.getLogger("swarmcore.ca")

ATTEMPTS = 5
PAUSE_SECONDS = 2.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Credential:
    """What the operator gave this node to join with."""

    token: str = ""
    """Goes into the request as it is; empty for a join method, and for a node that waits to be accepted."""
    ca_digest: str = ""
    """Of the root to trust; empty: the first one seen."""
    method: JoinMethod | None = None
    secret: str = ""
    role: NodeRole.ValueType = NodeRole.WORKER


def read_credential(text: str, methods: Mapping[str, JoinMethod]) -> Credential:
    """Understand `--join-token`: a token, `METHOD:[manager,]SECRET` of a join method, or nothing.

    Raises ConfigurationError, whose text never repeats the secret.
    """
    if not text:
        return Credential()
    name, colon, secret = text.partition(":")
    if colon and name in methods:
        role = NodeRole.WORKER
        for word, granted in (("manager,", NodeRole.MANAGER), ("worker,", NodeRole.WORKER)):
            if secret.startswith(word):
                secret, role = secret.removeprefix(word), granted
        return Credential(method=methods[name], secret=secret, role=role)
    try:
        return Credential(token=text, ca_digest=parse_join_token(text).ca_digest)
    except InvalidArgumentError as error:
        raise ConfigurationError(str(error)) from None


async def join(
    files: CertificateFolder,
    address: str,
    token: str,
    *,
    availability: NodeSpec.Availability.ValueType,
    join_methods: Mapping[str, JoinMethod],
    clock: Clock,
) -> tuple[bytes, bytes, bytes]:
    """Root, certificate chain and key (PEM), valid together. Raises ConfigurationError in one line."""
    credential = read_credential(token, join_methods)
    channels.split_address(address)
    root = await _trusted_root(files, address, credential, clock)
    attempt = files.read_join_attempt()
    if attempt is None or attempt.ca_digest != root.digest:
        key = new_key()
        attempt = JoinAttempt(ca_digest=root.digest, key_pem=key, csr=new_csr(key))
        # Before the request leaves: with the same request after a kill, the manager makes no second node.
        files.write_join_attempt(attempt)
    chain = await _certificate(files, root, attempt, address, credential, availability, clock)
    return root.certificate_pem, chain, attempt.key_pem


async def _trusted_root(files: CertificateFolder, address: str, credential: Credential, clock: Clock) -> RootCA:
    # A root whose key is here is that of a cluster which this node began and never ran.
    known = None if files.read_root_key() else files.read_root()
    if known is not None:
        root = RootCA(known)
        if not credential.ca_digest or root.digest == credential.ca_digest:
            return root
        log.warning("the root certificate on disk is not the one that the join token names; asking for it again")
    pem = await _try(lambda: channels.fetch_root(address, timeout=request.CALL_SECONDS), address, clock)
    try:
        root = RootCA(pem)
    except ConfigurationError:
        raise ConfigurationError(f"the manager at {address} sent a root certificate that can't be read") from None
    if credential.ca_digest and root.digest != credential.ca_digest:
        raise ConfigurationError(
            f"the manager at {address} has another root CA than the join token names: "
            "take the token from this cluster, and make sure that the address is the cluster's"
        )
    if not credential.ca_digest:
        log.warning("joining without a token that names the root CA: trusting %s at %s", root.hash, address)
    files.write_root(root.certificate_pem)
    # Last: as long as there is a key, the root is asked for again.
    files.forget_root_key()
    return root


async def _certificate(
    files: CertificateFolder,
    root: RootCA,
    attempt: JoinAttempt,
    address: str,
    credential: Credential,
    availability: NodeSpec.Availability.ValueType,
    clock: Clock,
) -> bytes:
    token = credential.token
    if credential.method is not None:
        token = credential.method.credential(
            csr=attempt.csr, ca_digest=root.digest, role=credential.role, secret=credential.secret
        )
    asked = request.CertificateRequest(csr=attempt.csr, token=token, role=credential.role, availability=availability)
    if token and not attempt.is_vouched:
        # It may wait without one already: it is asked for again, and the same request makes no second node.
        attempt = replace(attempt, node_id="", is_vouched=True)
    is_lost = False
    while True:
        if not attempt.node_id:
            attempt = await _try(lambda attempt=attempt: _ask(root, attempt, address, asked), address, clock)  # type: ignore[misc]
            files.write_join_attempt(attempt)
        try:
            return await _wait(root, attempt, address, clock)
        except request.RefusedError as error:
            files.forget_join_attempt()
            raise ConfigurationError(f"the manager at {address} refused this node: {error}") from None
        except UnavailableError as error:
            if not is_lost:
                log.warning("lost the manager at %s: %s; asking on until it is back", address, error)
            is_lost = True
            await clock.sleep_until(clock.monotonic() + PAUSE_SECONDS)


async def _ask(root: RootCA, attempt: JoinAttempt, address: str, asked: request.CertificateRequest) -> JoinAttempt:
    channel = channels.anonymous_channel(address, root.certificate_pem)
    try:
        node_id, is_accepted = await request.ask(channel, asked)
    finally:
        await request.close_quietly(channel)
    if not is_accepted:
        _say_waiting(node_id)
    return replace(attempt, node_id=node_id)


async def _wait(root: RootCA, attempt: JoinAttempt, address: str, clock: Clock) -> bytes:
    channel = channels.anonymous_channel(address, root.certificate_pem)
    try:
        return await request.wait_certificate(
            channel,
            node_id=attempt.node_id,
            csr=attempt.csr,
            clock=clock,
            is_waiting=lambda: _say_waiting(attempt.node_id),
        )
    finally:
        await request.close_quietly(channel)


async def fetch_unlock_key(address: str, dial: Callable[[], grpc.aio.Channel], clock: Clock) -> bytes | None:
    """What a new manager locks its disk with from the start. Raises ConfigurationError in one line."""
    return await _try(lambda: request.fetch_unlock_key(dial()), address, clock)


def _say_waiting(node_id: str) -> None:
    log.warning(
        "node %s waits to be accepted: run `swarmctl node accept %s` where the cluster is managed", node_id, node_id
    )


async def _try(act: Callable[[], Awaitable[T]], address: str, clock: Clock) -> T:
    """Do it, up to five times while no manager answers; raises ConfigurationError."""
    said = ""
    for left in reversed(range(ATTEMPTS)):
        try:
            return await act()
        except request.RefusedError as error:
            raise ConfigurationError(f"the manager at {address} refused this node: {error}") from None
        except UnavailableError as error:
            if not left:
                raise ConfigurationError(
                    f"can't reach a manager at {address}: {error}: check --join-addr and that a manager runs there"
                ) from None
            if str(error) != said:
                said = str(error)
                log.info("no manager at %s yet: %s; asking again", address, said)
            await clock.sleep_until(clock.monotonic() + PAUSE_SECONDS)
    raise AssertionError("unreachable")
