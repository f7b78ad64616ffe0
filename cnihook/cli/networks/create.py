# SPDX-License-Identifier: Apache-2.0
"""cnihook network create: write a network's file."""

import argparse
import hashlib
import time

from cnihook.cli.networks import drivers, engines, store, subnets
from cnihook.cli.networks.drivers import Driver, Plan, Range
from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.doctor import mtu
from cnihook.doctor.finding import Host, plugins_of
from cnihook.fast.address import Address, IPNet
from cnihook.linux import route_lookup
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import RT_TABLE_MAIN, Link, Rtnl
from cnihook.protocol import locks
from cnihook.runtime import networks
from cnihook.runtime.settings import Settings
from cnihook.types import names
from cnihook.types.errors import invalid_config
from cnihook.types.fields import MAX_VLAN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTION = """\
Write the file of a network into the folder of networks, and print its name.  The next container can use it.
Nothing changes on the host before.

Without --subnet, a subnet is chosen that no route, no address and no other network of the host uses, also
none of docker and podman.
"""
EPILOG = """\
KEY=VALUE of --opt is an option of the driver, see `cnihook man DRIVER`; or docker's name of one, such as
com.docker.network.driver.mtu; or sysctl.NAME=VALUE, which is set in the containers.
"""
_RESERVED = ("host", "none")  # docker-run passes these to docker
_USUAL = 1500  # MTU of a link whose MTU nothing sets
_LONGEST = 15  # characters of a link's name
_VERSION = "1.0.0"


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "name", metavar="NAME", type=arguments.checked(names.check_network_name), help="name of the network"
    )
    for flags, metavar, purpose in (
        ("--subnet", "CIDR", "a subnet; each container gets an address of each, repeatable"),
        ("--gateway", "ADDRESS", "the router of a subnet (default: its first address), repeatable"),
        ("--ip-range", "CIDR", "the part of a subnet that containers get addresses from, repeatable"),
        ("--dns", "ADDRESS", "a name server of the containers, repeatable"),
        ("-o --opt", "KEY=VALUE", "an option of the driver, repeatable"),
        ("--label", "KEY=VALUE", "a label, repeatable"),
    ):
        parser.add_argument(*flags.split(), metavar=metavar, action="append", default=[], help=purpose)
    parser.add_argument(
        "-d",
        "--driver",
        metavar="DRIVER",
        choices=drivers.names(),
        default=drivers.DEFAULT,
        help=f"the interface plugin: {', '.join(drivers.names())} (default: {drivers.DEFAULT})",
    )
    parser.add_argument(
        "--ipv6", action="store_true", help="IPv6 as well; a subnet is chosen if none is given"
    )
    parser.add_argument("--internal", action="store_true", help="no way from the network to the outside")
    parser.add_argument(
        "--isolated", action="store_true", help="containers of other networks reach only its published ports"
    )
    parser.add_argument("--parent", metavar="LINK", help="the link of the host that the network is on")
    parser.add_argument("--vlan", metavar="NUMBER", type=int, help="the VLAN of the containers")
    parser.add_argument(
        "--mtu", metavar="BYTES", type=int, help="MTU (default: that of the uplink, if below 1500)"
    )
    parser.add_conf_dir()
    parser.add_plugin_dirs()


def run(options: argparse.Namespace) -> int:
    settings = arguments.settings_of(options)
    rtnl = NetNS.current().rtnl
    with locks.networks(f"network create {options.name}"):
        _refuse_name(options.name, settings)
        raw = _Creation(options, settings, rtnl).raw()
        text = f"{arguments.as_json(raw, 2)}\n".encode()
        store.write(store.path_of(options.name, settings.conf_dir), text, settings)
    arguments.say(options.name)
    return 0


def _refuse_name(name: str, settings: Settings) -> None:
    if name in _RESERVED:
        raise invalid_config(f"the name {name} has a meaning of its own for docker", "choose another name")
    for network in networks.load_folder(settings.conf_dir)[0]:
        if network.name == name:
            raise invalid_config(
                f"network {name} exists already, in {network.source}",
                f"`cnihook network rm {name}` removes it; `cnihook network edit {name}` changes it",
            )


class _Creation:
    """The way from the options to the content of the file.  Nothing is changed on the host."""

    def __init__(self, options: argparse.Namespace, settings: Settings, rtnl: Rtnl) -> None:
        self.options = options
        self.settings = settings
        self.rtnl = rtnl
        self.others = Host(settings).configured
        self.driver = Driver(options.driver)
        self.plan = Plan(options.name, self.driver)
        self.plan.internal, self.plan.isolated = options.internal, options.isolated

    def raw(self) -> "dict[str, Any]":
        options, plan = self.options, self.plan
        for text in options.opt:
            plan.set_option(text)
        plan.dns = [str(_address("--dns", text)) for text in options.dns]
        parent = self._set_parent()
        self._set_vlan(parent)
        if self.driver.has_bridge:
            self._set_bridge()
        elif options.internal or options.isolated:
            option = "--internal" if options.internal else "--isolated"
            raise invalid_config(
                f"{option} has no effect on the driver {self.driver.name}", "the driver bridge has it"
            )
        self._set_ranges(parent)
        self._set_mtu(parent)
        labels = dict(_label(text) for text in options.label)
        return {
            "cniVersion": _VERSION,
            "name": options.name,
            **store.labelled(labels),
            "cnihook": {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
            "plugins": plan.plugins(),
        }

    # The link on the host

    def _set_parent(self) -> "Link | None":
        keys, given = self.plan.keys, self.options.parent
        if not self.driver.has_parent:
            if given:
                raise invalid_config(f"--parent {given}: the driver {self.driver.name} has no parent link")
            return None
        if given:
            keys["master"] = given
        link = self.rtnl.find_link(keys["master"]) if "master" in keys else _default_link(self.rtnl)
        if not link:
            if "master" in keys:
                raise invalid_config(f"parent {keys['master']} does not exist on this host", "see `ip link`")
            raise invalid_config("the host has no default route, so no parent link is known", "use --parent")
        self._refuse_parent(link)
        keys["master"] = link.name
        return link

    def _refuse_parent(self, link: Link) -> None:
        if link.name == "lo":
            raise invalid_config("parent lo is the loopback interface of the host", "see `ip link`")
        if link.master:
            master = self.rtnl.find_link_by_index(link.master)
            name = master.name if master else str(link.master)
            raise invalid_config(f"parent {link.name} is a port of {name}", f"--parent {name} uses that")
        if self.driver.vlan_key:
            return  # links of another kind may be on the same parent link
        for network in self.others:
            first = plugins_of(network)[0]
            is_other = first.traits.on_parent and first.type != self.driver.name
            if is_other and first.string("master") == link.name and not Driver(first.type).vlan_key:
                raise invalid_config(
                    f"parent {link.name} is that of network {network.name}, of driver {first.type}",
                    "the kernel has one kind of them on a link; use the same driver, or another link",
                )

    def _set_vlan(self, parent: "Link | None") -> None:
        key, number = self.driver.vlan_key, self.options.vlan
        if number is not None:
            if not key:
                raise invalid_config(f"--vlan {number}: the driver {self.driver.name} has no VLANs")
            if not 1 <= number <= MAX_VLAN:
                raise invalid_config(f"--vlan {number}: a VLAN has a number from 1 to {MAX_VLAN}")
            self.plan.keys[key] = number
        if not (parent and key):
            return
        if not self.plan.keys.get(key):
            raise invalid_config(f"the driver {self.driver.name} needs the number of a VLAN", "use --vlan")
        for network in self.others:
            first = plugins_of(network)[0]
            place = first.conf.raw.get("master"), first.conf.raw.get(key)
            if first.type == self.driver.name and place == (parent.name, self.plan.keys[key]):
                raise invalid_config(f"VLAN {place[1]} of {parent.name} is that of network {network.name}")

    def _set_bridge(self) -> None:
        """Choose the bridge: br-NAME, or a hash where that is too long or in use."""
        name, keys = self.plan.name, self.plan.keys
        digest = hashlib.sha256(name.encode()).hexdigest()[: _LONGEST - 3]
        choices = [keys["bridge"]] if "bridge" in keys else [f"br-{name}", f"br-{digest}"]
        choices = [each for each in choices if len(each) <= _LONGEST] or choices
        users = engines.podman_bridges()
        users |= {
            plugin.bridge: one.name for one in self.others for plugin in plugins_of(one) if plugin.bridge
        }
        for choice in choices:
            if choice in users:
                problem = f"bridge {choice} is that of network {users[choice]}"
            elif self.rtnl.find_link(choice):
                problem = f"bridge {choice}: the host has a link of this name"
            else:
                keys["bridge"] = choice
                return
        raise invalid_config(problem, "--opt bridge=NAME chooses another name")

    # Addresses

    def _set_ranges(self, parent: "Link | None") -> None:
        options, plan = self.options, self.plan
        is_shared = parent and not self.driver.vlan_key  # the subnet may be that of the parent link
        uses = subnets.in_use(self.settings, self.rtnl, parent.name if parent and is_shared else "")
        for text in options.subnet:
            net = subnets.parse(text)
            subnets.refuse_overlap(
                net, [*uses, *(subnets.Use(each.subnet, "another --subnet") for each in plan.ranges)]
            )
            plan.ranges.append(Range(net))
        present = {each.subnet.address.version for each in plan.ranges}
        if parent and not present:
            if not self.driver.takes_leases_of_others:
                raise invalid_config(
                    f"the driver {self.driver.name} needs a --subnet",
                    "its containers have one MAC address, by which DHCP would give all the same address",
                )
            if options.ipv6 or options.gateway or options.ip_range:
                raise invalid_config("--ipv6, --gateway and --ip-range need a --subnet on a parent link")
            return
        if not parent:
            for version in (4, 6):
                if version not in present and (options.ipv6 or (version == 4 and not present)):
                    plan.ranges.append(Range(subnets.free(version, uses)))
        elif options.ipv6 and 6 not in present:
            raise invalid_config(f"--ipv6 needs an IPv6 --subnet: that of the network on {parent.name}")
        for text in options.gateway:
            self._set_gateway(_address("--gateway", text))
        for text in options.ip_range:
            self._set_part(text)
        if parent and is_shared:
            self._fit_to_parent(parent)

    def _set_gateway(self, address: Address) -> None:
        for one in self.plan.ranges:
            if address in one.subnet:
                if one.gateway:
                    raise invalid_config(f"--gateway {address}: {one.subnet} has one already, {one.gateway}")
                one.gateway = address
                return
        raise invalid_config(f"--gateway {address} is in none of the subnets {self._subnets()}")

    def _set_part(self, text: str) -> None:
        try:
            part = IPNet.parse(text)
        except ValueError as error:
            raise invalid_config(f"--ip-range {error}") from None
        for one in self.plan.ranges:
            if part.first() in one.subnet and part.last() in one.subnet:
                one.part = part
                return
        raise invalid_config(f"--ip-range {part} is in none of the subnets {self._subnets()}")

    def _subnets(self) -> str:
        return ", ".join(str(one.subnet) for one in self.plan.ranges)

    def _fit_to_parent(self, parent: Link) -> None:
        """Use the router of the parent link's network; refuse a range that has an address of the host."""
        for one in self.plan.ranges:
            for route in route_lookup.routes(self.rtnl, one.subnet.address.version):
                is_default = (
                    route.dst is None and route.table == RT_TABLE_MAIN and route.index == parent.index
                )
                if not one.gateway and is_default and route.gateway and route.gateway in one.subnet:
                    one.gateway = route.gateway
            first, last = one.bounds
            for address in self.rtnl.addresses(parent):
                own = address.net.address
                if len(own) == len(first) and first <= own <= last:
                    raise invalid_config(
                        f"the host itself has {own}, on {parent.name}, and a container could get it, too",
                        "leave it out by --ip-range",
                    )

    def _set_mtu(self, parent: "Link | None") -> None:
        """Set the MTU that was requested, or without a parent link that of the uplink if it is low."""
        wanted, versions = self.options.mtu, {each.subnet.address.version for each in self.plan.ranges}
        if wanted is not None:
            least = 1280 if 6 in versions else 68
            most = parent.mtu if parent else 65535
            if not least <= wanted <= most:
                raise invalid_config(f"--mtu {wanted}: it must be from {least} to {most}")
            self.plan.keys["mtu"] = wanted
        elif not parent and "mtu" not in self.plan.keys and not self.plan.internal:
            least = min(
                (link.mtu for each in versions for link in mtu.uplinks(self.rtnl, each)), default=_USUAL
            )
            if least < _USUAL:
                self.plan.keys["mtu"] = least


def _default_link(rtnl: Rtnl) -> "Link | None":
    return next((link for version in (4, 6) for link in mtu.uplinks(rtnl, version)), None)


def _address(option: str, text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise invalid_config(f"{option} {error}") from None


def _label(text: str) -> "tuple[str, str]":
    """Return (key, value); docker takes a key without a value, too."""
    key, _, value = text.partition("=")
    if not key:
        raise invalid_config(f"--label {text}: the key is empty")
    return key, value
