"""What a node is started with: the flags of `swarmd`, checked and parsed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from swarmcore.api.types_pb2 import GenericResource

DEFAULT_STATE_DIR = Path("/var/lib/swarmd")
DEFAULT_CONTROL_SOCKET = Path("/var/run/swarmd.sock")
DEFAULT_REMOTE_API = "0.0.0.0:4242"
DEFAULT_ENGINE_ADDR = "unix:///var/run/docker.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptRule:
    """One link of the acceptance chain that `--accept` asks for: a policy by name, and its configuration as typed."""

    policy: str
    config: str = field(default="", repr=False)
    """May hold a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Everything an operator chooses for one node. Values are well formed; whether they work shows when it starts."""

    state_dir: Path = DEFAULT_STATE_DIR
    hostname: str = ""
    """Empty: the machine's own."""

    join_addr: str = ""
    """`host:port` of one manager. Empty: start a cluster, or go on with the one in the state directory."""
    join_token: str = field(default="", repr=False)
    """Used for the first certificate only."""
    accept: tuple[AcceptRule, ...] = ()
    """The acceptance chain of a cluster that this node starts; empty: tokens and the operator's own decision."""

    listen_remote_api: str = DEFAULT_REMOTE_API
    advertise_remote_api: str = ""
    """`host:port` that other nodes use; empty: what they see, with the port listened on."""
    listen_control_api: Path = DEFAULT_CONTROL_SOCKET
    listen_debug: str = ""
    listen_metrics: str = ""

    executors: tuple[str, ...] = ("auto",)
    """Names of executors, or `auto` alone: Docker if its socket answers, else Podman."""
    engine_addr: str = DEFAULT_ENGINE_ADDR
    generic_resources: tuple[GenericResource, ...] = ()

    force_new_cluster: bool = False
    """Go on as the only manager, with what this one has."""
    restore: Path | None = None
    """The backup that an empty state directory is filled from."""
    passphrase: bytes = field(default=b"", repr=False)
    """Of that backup."""
    heartbeat_tick: int = 1
    election_tick: int = 10
    autolock: bool = False
    """Of a cluster that this node starts."""
    unlock_key: bytes | None = field(default=None, repr=False)
    """32 bytes."""
