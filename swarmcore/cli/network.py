"""`swarmctl network`: create, list, inspect and remove networks."""

from __future__ import annotations

import ipaddress

import click

from swarmcore.api import control_pb2 as pb
from swarmcore.api.specs_pb2 import NetworkSpec
from swarmcore.api.types_pb2 import IPAMConfig
from swarmcore.cli.command_line import Group, Named, example, output_option, quiet_option
from swarmcore.cli.connection import manager
from swarmcore.cli.flag_types import PAIR
from swarmcore.cli.listing import page_of, show_list, shown_as_json
from swarmcore.cli.lookup import find_network
from swarmcore.cli.text import enum_name

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


@click.group(cls=Group, no_args_is_help=True)
def command() -> None:
    """Create, inspect and remove networks."""


def ipam_configs(subnets: tuple[str, ...], gateways: tuple[str, ...], ranges: tuple[str, ...]) -> list[IPAMConfig]:
    """Each subnet with the first gateway and the first range that lie in it; raises ValueError for one in none."""
    left = {gateway: ipaddress.ip_address(gateway) for gateway in gateways}
    spare = {each: ipaddress.ip_network(each, strict=False) for each in ranges}
    configs = []
    for text in subnets:
        subnet: Subnet = ipaddress.ip_network(text, strict=False)
        config = IPAMConfig(family=IPAMConfig.IPV4 if subnet.version == 4 else IPAMConfig.IPV6, subnet=text)
        gateway = next((name for name, address in left.items() if address in subnet), "")
        range_ = next((name for name, part in spare.items() if part.network_address in subnet), "")
        left.pop(gateway, None)
        spare.pop(range_, None)
        config.gateway, config.range = gateway, range_
        configs.append(config)
    for rest in (*left, *spare):
        raise ValueError(f"{rest!r} lies in no --subnet: give the subnet it belongs to")
    return configs


@command.command(
    name="create", epilog=example("swarmctl network create --name backend --driver overlay --subnet 10.9.0.0/24")
)
@click.option("--name", required=True, help="The network's name.")
@click.option("--driver", default="", help="The driver; the manager's default where not given.")
@click.option("--ipam-driver", default="", help="The driver that hands out addresses.")
@click.option("--subnet", multiple=True, metavar="CIDR", help="A subnet, like 10.9.0.0/24. Repeatable.")
@click.option("--gateway", multiple=True, metavar="IP", help="The gateway of a subnet. Repeatable.")
@click.option("--ip-range", multiple=True, metavar="CIDR", help="Give out addresses from this part only. Repeatable.")
@click.option("--opts", multiple=True, type=PAIR, help="An option of the driver. Repeatable.")
def create(
    name: str,
    driver: str,
    ipam_driver: str,
    subnet: tuple[str, ...],
    gateway: tuple[str, ...],
    ip_range: tuple[str, ...],
    opts: tuple[tuple[str, str], ...],
) -> None:
    """Create a network and print its id."""
    spec = NetworkSpec()
    spec.annotations.name = name
    if driver or opts:
        spec.driver_config.name = driver
        spec.driver_config.options.update(dict(pair for pair in opts if pair is not None))
    if ipam_driver:
        spec.ipam.driver.name = ipam_driver
    try:
        spec.ipam.configs.extend(ipam_configs(subnet, gateway, ip_range))
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None
    if not (subnet or ipam_driver):
        spec.ClearField("ipam")
    to = manager()
    click.echo(to.call(to.control.CreateNetwork, pb.CreateNetworkRequest(spec=spec)).network.id)


@command.command(name="ls")
@quiet_option
@output_option
def ls(quiet: bool, output: str) -> None:
    """List networks."""
    to = manager()
    networks = sorted(
        to.call(to.control.ListNetworks, pb.ListNetworksRequest()).networks,
        key=lambda network: (network.spec.annotations.name, network.id),
    )
    show_list(
        networks,
        ("ID", "Name", "Driver"),
        lambda each: (each.id, each.spec.annotations.name, each.driver_state.name),
        quiet=quiet,
        output=output,
    )


@command.command(name="inspect")
@click.argument("network", cls=Named)
@output_option
def inspect(network: str, output: str) -> None:
    """Show a network, its driver and its addresses."""
    found = find_network(manager(), network)
    if shown_as_json(found, output):
        return
    page = page_of(found)
    page.add("IPv6Enabled", str(found.spec.ipv6_enabled).lower())
    page.add("Internal", str(found.spec.internal).lower())
    driver = found.driver_state if found.HasField("driver_state") else found.spec.driver_config
    with page.section("Driver"):
        page.add("Name", driver.name)
        if driver.options:
            page.listing("Options", dict(driver.options))
    ipam = found.ipam if found.HasField("ipam") else found.spec.ipam
    with page.section("IPAM"):
        page.add("Driver", ipam.driver.name)
        for config in ipam.configs:
            with page.section("Config"):
                page.add("Family", enum_name(IPAMConfig.AddressFamily, config.family))
                page.add("Subnet", config.subnet)
                page.add("Range", config.range)
                page.add("Gateway", config.gateway)
                if config.reserved:
                    page.listing("Reserved", dict(config.reserved))
    click.echo(str(page))


@command.command(name="remove")
@click.argument("network", cls=Named)
def remove(network: str) -> None:
    """Remove a network that nothing uses."""
    to = manager()
    found = find_network(to, network)
    to.call(to.control.RemoveNetwork, pb.RemoveNetworkRequest(network_id=found.id))
    click.echo(network)
