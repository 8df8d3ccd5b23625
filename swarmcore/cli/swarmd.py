"""`swarmd`: run a node until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from swarmcore.cli.command_line import example
from swarmcore.cli.join_token import find_join_token
from swarmcore.cli.repeats import Repeats
from swarmcore.cli.unlock_key import find_unlock_key
from swarmcore.cli.words import shortened, wrong_word
from swarmcore.errors import ConfigurationError, NodeRemovedError, SwarmError

if TYPE_CHECKING:
    from swarmcore.node.config import AcceptRule, NodeConfig

log = logging.getLogger("swarmcore.cli")

PR_SET_DUMPABLE = 4
REMOVED_EXIT = 3
SWITCH_INTERVAL_SECONDS = 0.0005
LOG_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
_LEVEL_WORDS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error"}

NodeRun = Callable[["NodeConfig"], Awaitable[None]]


class LineFormatter(logging.Formatter):
    """`time=… level=info module=raft msg="…"`: one record, one line; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        module = record.name.removeprefix("swarmcore.")
        level = _LEVEL_WORDS.get(record.levelno, "fatal")
        message = record.getMessage().replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        line = f'time={moment}.{int(record.msecs):03d}Z level={level} module={module} msg="{message}"'
        if record.exc_info:
            line += "\n" + "\n".join("    " + row for row in self.formatException(record.exc_info).splitlines())
        return line


def start_logging(level: str) -> None:
    """Send records to stderr. Libraries speak from warnings on only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(LOG_LEVELS[level], logging.WARNING))
    logging.getLogger("swarmcore").setLevel(LOG_LEVELS[level])
    if LOG_LEVELS[level] > logging.DEBUG:
        # Read when gRPC is imported. It would write a line of its own to stderr for each stranger's failed handshake.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def parse_accept(texts: tuple[str, ...]) -> tuple[AcceptRule, ...]:
    """Read `NAME[:CONFIG]`, each policy once."""
    from swarmcore.node.config import AcceptRule

    rules: dict[str, AcceptRule] = {}
    for text in texts:
        policy, _, config = text.partition(":")
        if not policy.replace("-", "").replace("_", "").isalnum():
            raise ConfigurationError(f"--accept {text!r} names no policy: write it like auto or auto:worker")
        if policy in rules:
            raise ConfigurationError(f"--accept names the policy {policy!r} twice: give it once, with all it needs")
        rules[policy] = AcceptRule(policy=policy, config=config)
    return tuple(rules.values())


def parse_executors(text: str) -> tuple[str, ...]:
    """Read `auto`, or a comma-separated list of executors."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if not name.replace("-", "").isalnum():
            raise ConfigurationError(f"--executor {text!r} is not a list of names: write it like docker,process")
    if "auto" in names and len(names) > 1:
        raise ConfigurationError(f"--executor {text!r} mixes auto with names: give auto alone, or only names")
    return names


def parse_external_cas(texts: tuple[str, ...]) -> tuple[Any, ...]:
    """Read `protocol=cfssl,url=https://…[,k=v…]`."""
    from swarmcore.cli.external_ca import parse_external_ca

    return tuple(_checked("--external-ca", parse_external_ca, text) for text in texts)


def _checked(flag: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{flag}: {error}") from None


def build_config(flags: dict[str, Any]) -> NodeConfig:
    """Turn flags into a configuration; raises ConfigurationError with the flag's name."""
    from swarmcore.cli import values
    from swarmcore.node.config import NodeConfig

    unlock_key = find_unlock_key(flags["unlock_key"], flags["unlock_key_file"], os.environ)
    # Unlike a Path's, this answers for any text; what is wrong with the folder is said where it is used.
    is_joined = os.path.exists(os.path.join(flags["state_dir"], "certificates", "swarm-node.crt"))
    join_token = find_join_token(flags["join_token"], flags["join_token_file"], os.environ, is_joined=is_joined)

    def listen(flag: str, text: str) -> str:
        if text:
            _checked(flag, lambda value: values.host_and_port(value, port_zero=True), text)
        return text

    if not flags["listen_remote_api"]:
        raise ConfigurationError("--listen-remote-api is empty: give it an address, like 0.0.0.0:4242")
    for flag in ("join_addr", "advertise_remote_api"):
        name = "--" + flag.replace("_", "-")
        if flags[flag] and not _checked(name, values.host_and_port, flags[flag])[0]:
            raise ConfigurationError(f"{name} {flags[flag]!r} has no host: write it like 10.1.1.1:4242")
    debug = flags["listen_debug"]
    if debug and not _is_loopback(
        _checked("--listen-debug", lambda text: values.host_and_port(text, port_zero=True), debug)[0]
    ):
        raise ConfigurationError(
            f"--listen-debug {debug!r} shows the inside of this process: give it a loopback one, like 127.0.0.1:6060"
        )
    hostname = flags["hostname"]
    if len(hostname) > 255 or any(char.isspace() or not char.isprintable() for char in hostname):
        raise ConfigurationError("--hostname has blanks or control characters, or is longer than 255 characters")
    if join_token and not flags["join_addr"]:
        raise ConfigurationError("--join-token needs --join-addr: name a manager to join")
    if flags["force_new_cluster"] and flags["join_addr"]:
        raise ConfigurationError("--force-new-cluster and --join-addr exclude each other: drop one of them")
    if flags["autolock"] and flags["join_addr"]:
        raise ConfigurationError("--autolock is for a new cluster, and --join-addr joins one: drop one of them")
    _refuse_what_is_not_there_yet(flags)
    passphrase = _passphrase(flags)
    heartbeat, election = flags["heartbeat_tick"], flags["election_tick"]
    if heartbeat < 1 or not heartbeat < election <= 1000:
        raise ConfigurationError(
            f"--election-tick {election} must be more than --heartbeat-tick {heartbeat}, and both at least 1"
        )
    generic = flags["generic_node_resources"]
    return NodeConfig(
        state_dir=Path(flags["state_dir"]).absolute(),
        hostname=hostname,
        join_addr=flags["join_addr"],
        join_token=join_token,
        accept=parse_accept(flags["accept"]),
        listen_remote_api=listen("--listen-remote-api", flags["listen_remote_api"]),
        advertise_remote_api=flags["advertise_remote_api"],
        listen_control_api=_socket_path(flags["listen_control_api"]),
        listen_debug=listen("--listen-debug", flags["listen_debug"]),
        listen_metrics=listen("--listen-metrics", flags["listen_metrics"]),
        executors=parse_executors(flags["executor"]),
        engine_addr=flags["engine_addr"],
        generic_resources=_checked("--generic-node-resources", values.generic_resources, generic) if generic else (),
        force_new_cluster=flags["force_new_cluster"],
        restore=Path(flags["restore"]).absolute() if flags["restore"] else None,
        passphrase=passphrase,
        heartbeat_tick=heartbeat,
        election_tick=election,
        autolock=flags["autolock"],
        unlock_key=unlock_key,
    )


def _refuse_what_is_not_there_yet(flags: dict[str, Any]) -> None:
    """SwarmKit's flags that would be promises without a deed."""
    if parse_external_cas(flags["external_ca"]):
        raise ConfigurationError("--external-ca is not supported: this version signs with the cluster's own root CA")


def _passphrase(flags: dict[str, Any]) -> bytes:
    """Of the backup that --restore names: out of a file, or typed. Raises ConfigurationError."""
    from swarmcore.replication.backup_file import checked_passphrase, read_passphrase

    file = flags["passphrase_file"]
    if not flags["restore"]:
        if file:
            raise ConfigurationError("--passphrase-file is for --restore: give both, or none")
        return b""
    for flag in ("join_addr", "force_new_cluster", "autolock"):
        if flags[flag]:
            raise ConfigurationError(f"--restore and --{flag.replace('_', '-')} exclude each other: drop one of them")
    if file:
        return read_passphrase(file)
    if not sys.stdin.isatty():
        raise ConfigurationError("--restore needs the passphrase of the backup: give it with --passphrase-file")
    typed = click.prompt("Passphrase of the backup", hide_input=True, err=True)
    return checked_passphrase(os.fsencode(typed), "what was typed")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _socket_path(text: str) -> Path:
    path = Path(text.removeprefix("unix://"))
    if not text or len(os.fsencode(path.absolute())) > 107:
        raise ConfigurationError(
            f"--listen-control-api {text!r} must be a path of 1 to 107 bytes: choose a shorter one"
        )
    return path.absolute()


async def serve(config: NodeConfig, run: NodeRun) -> None:
    """Run the node until it ends by itself or a signal stops it; a second signal ends the process at once."""
    loop = asyncio.get_running_loop()
    work = asyncio.ensure_future(run(config))
    stopping = False

    def stop(name: str) -> None:
        nonlocal stopping
        if stopping:
            log.warning("%s again: ending at once", name)
            os._exit(1)
        stopping = True
        log.info("%s: stopping", name)
        work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number.name)
    try:
        await work
    except asyncio.CancelledError:
        if not stopping:
            raise
        log.info("stopped")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def forbid_dumps() -> None:
    """Have the kernel write no core file of this process, where a manager's keys would stand; tasks may have theirs."""
    with contextlib.suppress(OSError, AttributeError):
        # Where a pipe takes core files, a limit of their size means nothing; and it would be the tasks' limit too.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _exit_on_early_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=example(
        "swarmd                                                     # start a cluster",
        "swarmd --join-addr 10.1.1.1:4242 --join-token SWMTKN-1-…   # join it, as `swarmctl cluster inspect` prints",
        "swarmd -d /tmp/n1 --listen-control-api /tmp/n1.sock --executor process",
    ),
)
@click.option("--version", "-v", is_flag=True, help="Print the version and exit.")
@click.option(
    "--log-level",
    "-l",
    type=click.Choice(list(LOG_LEVELS)),
    default="info",
    show_default=True,
    help="What to write to stderr: this level and worse.",
)
@click.option(
    "--state-dir",
    "-d",
    metavar="DIR",
    default="/var/lib/swarmd",
    show_default=True,
    help="Where the node keeps its state.",
)
@click.option("--join-addr", metavar="HOST:PORT", default="", help="One manager of the cluster to join.")
@click.option(
    "--join-token", metavar="TOKEN", default="", help="The token to join with; see `swarmctl cluster inspect`."
)
@click.option(
    "--join-token-file",
    metavar="PATH",
    default="",
    help="Where that token is read from, so that nobody sees it in ps; - asks for it. Or set SWARM_JOIN_TOKEN.",
)
@click.option(
    "--accept",
    multiple=True,
    metavar="POLICY[:CONFIG]",
    help="Who may join the cluster that this node starts, such as auto or auto:worker. Repeatable.",
)
@click.option("--hostname", metavar="NAME", default="", help="Instead of the machine's own name.")
@click.option(
    "--listen-remote-api",
    metavar="HOST:PORT",
    default="0.0.0.0:4242",
    show_default=True,
    help="For other nodes, with TLS.",
)
@click.option(
    "--advertise-remote-api",
    metavar="HOST:PORT",
    default="",
    help="What other nodes are told to connect to; else the first address of this machine.",
)
@click.option(
    "--listen-control-api",
    metavar="PATH",
    default="/var/run/swarmd.sock",
    show_default=True,
    help="The socket for swarmctl.",
)
@click.option(
    "--listen-debug",
    metavar="HOST:PORT",
    default="",
    help="The running tasks with their stacks, over HTTP on loopback.",
)
@click.option("--listen-metrics", metavar="HOST:PORT", default="", help="Prometheus metrics over HTTP, at /metrics.")
@click.option(
    "--executor",
    metavar="NAME,…",
    default="auto",
    show_default=True,
    help="What runs tasks: auto, docker, podman, process, or a list such as docker,process.",
)
@click.option(
    "--engine-addr",
    metavar="ADDRESS",
    default="unix:///var/run/docker.sock",
    show_default=True,
    help="The engine's socket.",
)
@click.option("--generic-node-resources", metavar="KIND=N,…", default="", help="Such as fpga=2,gpu=UUID1,gpu=UUID2.")
@click.option(
    "--force-new-cluster",
    is_flag=True,
    help="Go on as the only manager with this one's data, where too few of the others are left to agree.",
)
@click.option(
    "--restore",
    metavar="FILE",
    default="",
    help="Fill an empty state directory from a backup of `swarmctl cluster backup`, and go on as its only manager.",
)
@click.option(
    "--passphrase-file",
    metavar="PATH",
    default="",
    help="What opens that backup: the file's first line; else asked for.",
)
@click.option(
    "--heartbeat-tick", metavar="N", type=int, default=1, show_default=True, help="Raft ticks (100 ms) for a heartbeat."
)
@click.option(
    "--election-tick", metavar="N", type=int, default=10, show_default=True, help="Raft ticks before an election."
)
@click.option("--external-ca", multiple=True, metavar="SPEC", help="Not in this version.")
@click.option("--autolock", is_flag=True, help="Lock a new cluster: its manager's log opens with the unlock key only.")
@click.option(
    "--unlock-key-file",
    metavar="PATH",
    default="",
    help="Where a manager that is locked finds its unlock key; - asks for it. Or set SWARM_UNLOCK_KEY.",
)
@click.option(
    "--unlock-key", metavar="KEY", default="", help="SWMKEY-1-… itself, which everyone on this machine can see."
)
def command(version: bool, log_level: str, **flags: Any) -> None:
    """Run a node of a swarm: start a cluster, or join one with --join-addr."""
    if version:
        from swarmcore.cli.version import version_line

        click.echo(version_line("swarmd"))
        return
    config = build_config(flags)
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    forbid_dumps()
    start_logging(log_level)
    from swarmcore.node.node import run

    asyncio.run(serve(config, run))


def main() -> None:
    """The console script: one line on stderr for what goes wrong; exit code 1, or 2 for wrong usage, 3 when removed."""
    signal.signal(signal.SIGTERM, _exit_on_early_signal)
    if wrong := wrong_word(sys.argv[1:]):
        print(f"Error: {wrong}", file=sys.stderr)
        raise SystemExit(2)
    try:
        command.main(prog_name="swarmd", standalone_mode=False)
    except click.UsageError as error:
        print(f"Error: {shortened(error.format_message())} (swarmd --help lists the flags)", file=sys.stderr)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, click.Abort):
        raise SystemExit(130) from None
    except NodeRemovedError as error:
        print(f"Error: {shortened(str(error))}", file=sys.stderr)
        raise SystemExit(REMOVED_EXIT) from None
    except SwarmError as error:
        print(f"Error: {shortened(str(error))}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        print(f"Error: {shortened(str(error))}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
