"""One manager, as a command sees it: calls with a deadline, and failures in words that say what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import grpc

from swarmcore.api.control_pb2_grpc import ControlStub
from swarmcore.api.metadata import OUTCOME, STALE
from swarmcore.cli.command_line import CliError, Settings, settings
from swarmcore.cli.text import clean

if TYPE_CHECKING:
    from swarmcore.api.backup_pb2_grpc import BackupStub
    from swarmcore.api.ca_pb2_grpc import CAStub
    from swarmcore.api.plugins_pb2_grpc import PluginsStub

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")

TIMEOUT_SECONDS = 10.0
CONFLICT_RETRIES = 5
SERVER_NAME = "swarm-manager"
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
STALE_WARNING = "warning: the swarm has no leader now; this is what this manager knew last"
_CHANGED_MEANWHILE = "update out of sequence"


class CallError(CliError):
    """A call that the manager refused, with its gRPC status."""

    def __init__(self, message: str, code: grpc.StatusCode) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_conflict(self) -> bool:
        """The object changed between reading and writing it: read again, then write."""
        return self.code is grpc.StatusCode.ABORTED or _CHANGED_MEANWHILE in self.message


class Manager:
    """The manager behind the control socket. Connects at the first call."""

    def __init__(self, flags: Settings) -> None:
        self.path = flags.socket.removeprefix("unix://")
        self.resolve = flags.resolve
        self._ca_cert = flags.ca_cert
        self._is_stale = False
        """Some answer came from a manager without a leader, and that was said."""

    @cached_property
    def channel(self) -> grpc.Channel:
        if not self.path:
            raise CliError("the socket's path is empty: give it with --socket, or leave SWARM_SOCKET unset")
        target = f"unix:{os.path.abspath(self.path)}"
        if not self._ca_cert:
            return grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
        try:
            root = Path(self._ca_cert).read_bytes()
        except OSError as error:
            raise CliError(f"can't read --ca-cert {self._ca_cert!r}: {error.strerror}") from None
        options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME))
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(root), options=options)

    @cached_property
    def control(self) -> ControlStub:
        return ControlStub(self.channel)

    @cached_property
    def ca(self) -> CAStub:
        from swarmcore.api.ca_pb2_grpc import CAStub

        return CAStub(self.channel)

    @cached_property
    def plugins(self) -> PluginsStub:
        from swarmcore.api.plugins_pb2_grpc import PluginsStub

        return PluginsStub(self.channel)

    @cached_property
    def backup(self) -> BackupStub:
        from swarmcore.api.backup_pb2_grpc import BackupStub

        return BackupStub(self.channel)

    def call(self, method: grpc.UnaryUnaryMultiCallable[Q, R], request: Q) -> R:
        """Make one call; raises CallError with what the manager says, or with why it can't be asked."""
        try:
            answer, call = method.with_call(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise self.failure(error) from None
        if not self._is_stale and any(key == STALE for key, _ in call.trailing_metadata() or ()):
            self._is_stale = True
            click.echo(STALE_WARNING, err=True)
        return answer

    def failure(self, error: grpc.RpcError) -> CallError:
        """What went wrong with a call, in words that say what to do."""
        code, details = error.code(), clean(error.details() or "")
        if details and any(pair.key == OUTCOME for pair in error.trailing_metadata() or ()):
            # A manager's own words, whatever they sound like.
            return CallError(details, code)
        return CallError(self._explain(code, details), code)

    def _explain(self, code: grpc.StatusCode, details: str) -> str:
        if code is grpc.StatusCode.UNAVAILABLE:
            return self._why_unavailable(details)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return (
                f"the manager at {self.path!r} did not answer within {TIMEOUT_SECONDS:g} s: "
                "it may be busy or without a leader; look at its log, or try again"
            )
        if code is grpc.StatusCode.UNIMPLEMENTED and ("not found" in details or details.startswith("unknown ")):
            return f"the manager at {self.path!r} does not know this call: it runs another version"
        return details or f"the manager answered {code.name} and nothing more: look at its log"

    def _why_unavailable(self, details: str) -> str:
        """The manager's own words, or what is wrong with the socket."""
        problem = socket_problem(self.path)
        if problem:
            return problem
        words = details.lower()
        if "ssl" in words or "handshake" in words or "certificate" in words:
            return (
                f"the manager at {self.path!r} is not trusted with --ca-cert {self._ca_cert!r}: give it the "
                "cluster's root, certificates/swarm-root-ca.crt in the manager's state directory"
            )
        if any(sign in words for sign in ("connect", "socket", "goaway", "transport", "endpoint", "eof", "ping")):
            return (
                f"the connection to the manager at {self.path!r} broke: it is starting, stopping, or a SwarmKit "
                "swarmd, which needs --ca-cert with certificates/swarm-root-ca.crt of its state directory"
            )
        return details or f"the manager at {self.path!r} is not available: try again"


def socket_problem(path: str) -> str:
    """What keeps this process from connecting to `path`; empty where nothing does."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2)
            probe.connect(path)
    except FileNotFoundError:
        return (
            f"no manager listens at {path!r}: start swarmd, or name its --listen-control-api "
            "with --socket or SWARM_SOCKET (workers have none)"
        )
    except PermissionError:
        return f"no permission to use the socket {path!r}: run as the user that swarmd runs as, most often root"
    except ConnectionRefusedError:
        return f"nothing listens at {path!r}: swarmd has stopped, or is a worker now; start it, or ask another manager"
    except TimeoutError:
        return f"the manager at {path!r} takes no connections now: it is overloaded or stopped; try again"
    except OSError as error:
        return f"can't use the socket {path!r}: {error.strerror or error}; name another with --socket or SWARM_SOCKET"
    return ""


def manager() -> Manager:
    """The manager that the running command was pointed at; one for a process."""
    root = click.get_current_context().find_root()
    found = root.meta.get(__name__)
    if found is None:
        found = root.meta[__name__] = Manager(settings())
        root.call_on_close(lambda: found.channel.close() if "channel" in vars(found) else None)
    assert isinstance(found, Manager)
    return found


def with_fresh_read(change: Callable[[], T]) -> T:
    """Run `change`, which reads an object and writes it; again where someone else wrote it in between."""
    for _ in range(CONFLICT_RETRIES - 1):
        try:
            return change()
        except CallError as error:
            if not error.is_conflict:
                raise
    return change()
