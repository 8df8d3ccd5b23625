"""`swarmctl cluster`: inspect and change the cluster, its tokens and its keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from swarmcore.api import brake
from swarmcore.api import control_pb2 as pb
from swarmcore.api.objects_pb2 import Cluster, Node
from swarmcore.api.specs_pb2 import ClusterSpec
from swarmcore.api.types_pb2 import ExternalCA
from swarmcore.cli.backup import backup, check
from swarmcore.cli.command_line import CliError, Group, example, is_any_given, output_option, quiet_option
from swarmcore.cli.connection import Manager, manager, with_fresh_read
from swarmcore.cli.external_ca import parse_external_ca
from swarmcore.cli.flag_types import DURATION, PAIR, Value
from swarmcore.cli.listing import show_list, shown_as_json
from swarmcore.cli.lookup import find_cluster
from swarmcore.cli.text import Page, duration, enum_name
from swarmcore.cli.unlock_key import format_unlock_key

CLUSTER = "default"
NOT_LOCKED = "managers are not locked, so there is no unlock key: `swarmctl cluster update --autolock` locks them"


@click.group(cls=Group, no_args_is_help=True)
def command() -> None:
    """Inspect and change the cluster, its tokens and its keys."""


command.add_command(backup)
command.add_command(check)


@command.command(name="ls")
@quiet_option
@output_option
def ls(quiet: bool, output: str) -> None:
    """List clusters; there is one, named default."""
    to = manager()
    clusters = list(to.call(to.control.ListClusters, pb.ListClustersRequest()).clusters)
    show_list(
        clusters,
        ("ID", "Name"),
        lambda cluster: (cluster.id, cluster.spec.annotations.name),
        quiet=quiet,
        output=output,
    )


@command.command(
    name="inspect",
    epilog=example(
        "swarmctl cluster inspect default", "swarmctl cluster inspect -o json | jq -r .root_ca.join_tokens.worker"
    ),
)
@click.argument("cluster", default=CLUSTER)
@output_option
def inspect(cluster: str, output: str) -> None:
    """Show the cluster's settings, and the join tokens with the commands that use them."""
    to = manager()
    found = find_cluster(to, cluster)
    if shown_as_json(found, output):
        return
    nodes = to.call(to.control.ListNodes, pb.ListNodesRequest()).nodes
    click.echo(cluster_page(found, held=sum(brake.is_held(node) for node in nodes)))
    address = join_address(nodes)
    tokens = found.root_ca.join_tokens
    if address and tokens.worker:
        click.echo("\nJoin as a worker, with a Docker Engine or with swarmd:")
        click.echo(f"  docker swarm join --token {tokens.worker} {address}")
        click.echo(f"  swarmd -d /var/lib/swarmd --join-addr {address} --join-token {tokens.worker}")


def join_address(nodes: Iterable[Node]) -> str:
    """Where other nodes reach the leader; empty where no node says."""
    for node in nodes:
        if node.manager_status.leader:
            host, _, port = node.manager_status.addr.rpartition(":")
            if host.strip("[]") in ("", "0.0.0.0", "::"):  # noqa: S104 - recognised, not bound
                seen = node.status.addr
                host = f"[{seen}]" if ":" in seen else seen
            return f"{host}:{port}" if host and port else ""
    return ""


def cluster_page(cluster: Cluster, held: int = 0) -> str:
    """`held`: nodes whose tasks the brake keeps from being replaced."""
    spec = cluster.spec
    page = Page()
    page.add("ID", cluster.id)
    page.add("Name", spec.annotations.name)
    with page.section("Orchestration settings"):
        page.add("Task history entries", spec.orchestration.task_history_retention_limit)
        page.add("Brake", brake_text(spec.annotations.labels.get(brake.LABEL, "")))
        if held:
            what = f"the tasks of {held} nodes that went down at once are held"
            page.add("Brake is on", f"{what}; `swarmctl cluster update --brake release` has them replaced now")
    with page.section("Dispatcher settings"):
        period = spec.dispatcher.heartbeat_period
        page.add("Dispatcher heartbeat period", duration(period.seconds, period.nanos))
    with page.section("Certificate Authority settings"):
        expiry = spec.ca_config.node_cert_expiry
        if spec.ca_config.HasField("node_cert_expiry"):
            page.add("Certificate Validity Duration", duration(expiry.seconds, expiry.nanos))
        page.add("Root CA digest", cluster.root_ca.ca_cert_hash)
        if cluster.root_ca.HasField("root_rotation"):
            page.add("Root rotation", "in progress")
        with page.section("Join Tokens"):
            page.add("Worker", cluster.root_ca.join_tokens.worker)
            page.add("Manager", cluster.root_ca.join_tokens.manager)
        if spec.ca_config.external_cas:
            page.listing(
                "External CAs",
                [
                    f"{enum_name(ExternalCA.CAProtocol, ca.protocol).lower()} {ca.url}"
                    for ca in spec.ca_config.external_cas
                ],
            )
    page.add("Managers locked", "yes" if spec.encryption_config.auto_lock_managers else "no")
    driver = spec.task_defaults.log_driver
    if driver.name:
        with page.section("Default Log Driver"):
            page.add("Name", driver.name)
            if driver.options:
                page.listing("Options", dict(driver.options))
    return str(page)


def brake_text(label: str) -> str:
    """The setting in full; as it stands there when it is of a later version."""
    try:
        return str(brake.parse_brake(label))
    except ValueError:
        return label


def _brake(text: str) -> str:
    if text.strip() != brake.RELEASE:
        brake.parse_brake(text)
    return text.strip()


def _history(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 2**63
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{text!r} is not a whole number (a negative one keeps every task)")
    return number


@command.command(
    name="update",
    epilog=example(
        "swarmctl cluster update --rotate-join-token worker",
        "swarmctl cluster update default --certexpiry 720h --taskhistory 3",
        "swarmctl cluster update --autolock",
        "swarmctl cluster update --brake share=30,wait=1h",
    ),
)
@click.argument("cluster", default=CLUSTER)
@click.option("--taskhistory", type=Value("N", _history), help="Ended tasks to keep for each slot; negative keeps all.")
@click.option("--certexpiry", type=DURATION, help="How long a node's certificate is valid, from 1h; like 2160h.")
@click.option(
    "--external-ca",
    multiple=True,
    type=Value("SPEC", parse_external_ca),
    help="protocol=cfssl,url=https://…: replaces the list. Repeatable.",
)
@click.option("--heartbeatperiod", type=DURATION, help="How often a node reports that it is alive, like 5s.")
@click.option("--log-driver", help="The log driver of services that name none; empty for the engine's.")
@click.option("--log-opt", multiple=True, type=PAIR, help="An option of that log driver. Repeatable.")
@click.option(
    "--rotate-join-token", type=click.Choice(["worker", "manager"]), help="Make a new token; the old one ends."
)
@click.option("--rotate-unlock-key", is_flag=True, help="Make a new unlock key, and print it.")
@click.option(
    "--brake",
    type=Value("SETTING", _brake),
    help="When many nodes are lost at once: share=50,window=1m,wait=10m,nodes=3; off; or release, once.",
)
@click.option("--autolock/--no-autolock", default=None, help="Lock managers' keys on disk with an unlock key.")
def update(cluster: str, **given: Any) -> None:
    """Change settings, rotate tokens and keys. Flags that are not given change nothing."""
    to = manager()
    if not is_any_given({**given, "rotate_unlock_key": given["rotate_unlock_key"] or None}):
        raise click.UsageError("nothing to change: give at least one flag", click.get_current_context())

    def once() -> Cluster:
        found = find_cluster(to, cluster)
        request = pb.UpdateClusterRequest(cluster_id=found.id, cluster_version=found.meta.version, spec=found.spec)
        edit_cluster(request.spec, given)
        role = given["rotate_join_token"]
        request.rotation.worker_join_token = role == "worker"
        request.rotation.manager_join_token = role == "manager"
        request.rotation.manager_unlock_key = given["rotate_unlock_key"]
        return to.call(to.control.UpdateCluster, request).cluster

    changed = with_fresh_read(once)
    click.echo(changed.id)
    if given["rotate_join_token"]:
        click.echo(f"{given['rotate_join_token']} join token: {_token(changed, given['rotate_join_token'])}")
    if given["rotate_unlock_key"] or given["autolock"]:
        _print_unlock_key(to)


def _token(cluster: Cluster, role: str) -> str:
    tokens = cluster.root_ca.join_tokens
    return tokens.manager if role == "manager" else tokens.worker


def edit_cluster(spec: ClusterSpec, given: dict[str, Any]) -> None:
    """Change `spec` as the flags say; raises CliError where they contradict it."""
    if given["taskhistory"] is not None:
        spec.orchestration.task_history_retention_limit = given["taskhistory"]
    if given["certexpiry"] is not None:
        spec.ca_config.node_cert_expiry.CopyFrom(given["certexpiry"])
    if given["external_ca"]:
        del spec.ca_config.external_cas[:]
        spec.ca_config.external_cas.extend(ca for ca in given["external_ca"] if ca is not None)
    if given["heartbeatperiod"] is not None:
        spec.dispatcher.heartbeat_period.CopyFrom(given["heartbeatperiod"])
    if given["brake"] is not None:
        spec.annotations.labels[brake.LABEL] = given["brake"]
    if given["autolock"] is not None:
        spec.encryption_config.auto_lock_managers = given["autolock"]
    if given["rotate_unlock_key"] and not spec.encryption_config.auto_lock_managers:
        raise CliError(NOT_LOCKED)
    if given["log_driver"] is not None:
        spec.task_defaults.ClearField("log_driver")
        if given["log_driver"]:
            spec.task_defaults.log_driver.name = given["log_driver"]
    if given["log_opt"]:
        if not spec.task_defaults.log_driver.name:
            raise CliError("--log-opt needs --log-driver: name the driver that the options are for")
        spec.task_defaults.log_driver.options.clear()
        spec.task_defaults.log_driver.options.update(dict(pair for pair in given["log_opt"] if pair is not None))


@command.command(
    name="unlock-key",
    epilog=example(
        "swarmctl cluster unlock-key", "swarmctl cluster unlock-key -q > key", "swarmctl cluster unlock-key --rotate"
    ),
)
@click.argument("cluster", default=CLUSTER)
@click.option(
    "--rotate", is_flag=True, help="Make a new key first. A manager that is away needs the old one once more."
)
@click.option("--quiet", "-q", is_flag=True, help="Print the key alone; nothing where managers are not locked.")
def unlock_key(cluster: str, rotate: bool, quiet: bool) -> None:
    """Print the key that unlocks a locked manager after its restart."""
    to = manager()

    def once() -> None:
        found = find_cluster(to, cluster)
        if not rotate:
            return
        if not found.spec.encryption_config.auto_lock_managers:
            raise CliError(NOT_LOCKED)
        request = pb.UpdateClusterRequest(cluster_id=found.id, cluster_version=found.meta.version, spec=found.spec)
        request.rotation.manager_unlock_key = True
        to.call(to.control.UpdateCluster, request)

    with_fresh_read(once)
    _print_unlock_key(to, quiet=quiet)


def _print_unlock_key(to: Manager, *, quiet: bool = False) -> None:
    from swarmcore.api.ca_pb2 import GetUnlockKeyRequest

    key = to.call(to.ca.GetUnlockKey, GetUnlockKeyRequest()).unlock_key
    if quiet:
        click.echo(format_unlock_key(key) if key else "", nl=bool(key))
    elif not key:
        click.echo("Managers are not locked: `swarmctl cluster update --autolock` locks them")
    else:
        click.echo(f"Managers auto-locked.  Unlock key: {format_unlock_key(key)}")
