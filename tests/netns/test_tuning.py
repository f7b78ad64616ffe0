# SPDX-License-Identifier: Apache-2.0
"""tuning: settings of the container's namespace and attributes of its interface, until DEL restores them.

The leak check after each test shows whether the interface has its own MAC address, MTU and modes again.
"""

from typing import Any

import pytest

from tests.netns.differences import OLD_KEYS, ONE_CODE
from tests.support.host.host import Container, Host
from tests.support.plugins.cni import CniFailure
from tests.support.plugins.tuning import (
    ALL,
    FILE,
    MAC,
    OWN_MAC,
    SOMAXCONN,
    add,
    conf,
    made_by_another,
    state,
    untuned,
)

ALLOWLIST = "/etc/cni/tuning/allowlist.conf"

NOT_PUT_BACK = pytest.mark.known_difference(
    "DEL leaves sysctls as ADD set them (plugins#493)",
    here="restores them, if they were not changed since",
    right="SPEC.md, 2 DEL",
)
PANICS = pytest.mark.known_difference(
    "panics if args.cni has sysctls and the network has none", here="works", right="SPEC.md, 2 ADD"
)
NO_ALLOWLIST = pytest.mark.known_difference(
    "the allowlist does not apply to sysctls of the container", here="it applies to them", right="cnihook"
)


@pytest.fixture
def container(host: Host) -> Container:
    return untuned(host)


# Settings


@pytest.mark.parametrize("key", ["net.core.somaxconn", "net/core/somaxconn"])
def test_setting_changes_in_the_container_only(host: Host, container: Container, key: str) -> None:
    before = host.sysctl(SOMAXCONN)

    add(host, container, conf(sysctl={key: "77"}))

    assert container.sysctl(SOMAXCONN) == "77"
    assert host.sysctl(SOMAXCONN) == before


@NOT_PUT_BACK
def test_del_restores_settings(host: Host, container: Container) -> None:
    """The namespace may stay, and then the next network must find it as this one did."""
    before = container.sysctl(SOMAXCONN)
    sent = add(host, container, conf(sysctl={"net.core.somaxconn": "77"}))

    host.cni("DEL", sent, container)

    assert container.sysctl(SOMAXCONN) == before


def test_del_leaves_a_setting_that_changed_since(host: Host, container: Container) -> None:
    """Another program has set it since."""
    sent = add(host, container, conf(sysctl={"net.core.somaxconn": "77"}))
    container.set_sysctl(SOMAXCONN, "78")

    host.cni("DEL", sent, container)

    assert container.sysctl(SOMAXCONN) == "78"


@NOT_PUT_BACK
def test_del_restores_an_empty_list(host: Host, container: Container) -> None:
    """The kernel empties the list for an empty line, and ignores a write of zero bytes."""
    sent = add(host, container, conf(sysctl={"net.ipv4.ip_local_reserved_ports": "8080,8081"}))
    assert container.sysctl("net/ipv4/ip_local_reserved_ports") == "8080-8081"

    host.cni("DEL", sent, container)

    assert container.sysctl("net/ipv4/ip_local_reserved_ports") == ""


def test_ifname_stands_for_the_interface(host: Host, container: Container) -> None:
    add(host, container, conf(sysctl={"net.ipv4.conf.IFNAME.arp_notify": "1"}))

    assert container.sysctl("net/ipv4/conf/eth0/arp_notify") == "1"


@pytest.mark.parametrize(
    "key",
    [
        "net.ipv4.conf.IFNAME.arp_notify",
        "net/ipv4/conf/IFNAME/arp_notify",
        "net/ipv4/conf/eth0.100/arp_notify",
        "net.ipv4.conf.eth0/100.arp_notify",
    ],
)
@pytest.mark.known_difference(
    "a dot in the interface's name becomes a slash", here="it stays", right="cnihook"
)
def test_interface_may_have_a_dot_in_its_name(host: Host, container: Container, key: str) -> None:
    """Interfaces of VLANs have one."""
    made_by_another(host, container, "eth0.100")

    add(host, container, conf(sysctl={key: "1"}), "eth0.100")

    assert container.sysctl("net/ipv4/conf/eth0.100/arp_notify") == "1"


@pytest.mark.parametrize(
    "key",
    [
        "kernel.domainname",
        "net/../kernel/domainname",
        "net.ipv4.//.//.kernel.domainname",
        "network.x",
        "net",
    ],
)
def test_setting_that_is_not_of_the_network_is_refused(host: Host, container: Container, key: str) -> None:
    """The setting would be that of the whole machine."""
    with pytest.raises(CniFailure):
        add(host, container, conf(sysctl={key: "nonsense"}))

    assert host.sysctl("kernel/domainname") != "nonsense"


def test_error_names_an_unknown_setting(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match="net/ipv4/no_such_thing"):
        add(host, container, conf(sysctl={"net.ipv4.no_such_thing": "1"}))


@pytest.mark.known_difference(
    "sets two spellings of one sysctl in random order", here="refused", right="cnihook"
)
def test_two_spellings_of_one_setting_are_refused(host: Host, container: Container) -> None:
    with pytest.raises(CniFailure, match="duplicated sysctl keys"):
        add(host, container, conf(sysctl={"net.core.somaxconn": "77", "net/core/somaxconn": "78"}))


def test_setting_that_cannot_be_read_is_set(host: Host, container: Container) -> None:
    add(host, container, conf(sysctl={"net.ipv6.conf.IFNAME.stable_secret": "2001:db8::1"}))

    assert container.sysctl("net/ipv6/conf/eth0/stable_secret").endswith(":0001")


# The allowlist


def allow(host: Host, *lines: str) -> None:
    host.write(ALLOWLIST, "\n".join(lines))
    host.leaves("dir /etc/cni/tuning", f"file {ALLOWLIST}")


@pytest.mark.parametrize("line", [r"^net\.core\.somaxconn$", "somax", "[a-z.]+"])
def test_allowlist_allows_what_matches_a_line(host: Host, container: Container, line: str) -> None:
    allow(host, "", "nothing", line)

    add(host, container, conf(sysctl={"net.core.somaxconn": "77"}))

    assert container.sysctl(SOMAXCONN) == "77"


@NO_ALLOWLIST
@pytest.mark.parametrize("where", ["network", "container"])
def test_allowlist_refuses_what_is_not_on_it(host: Host, container: Container, where: str) -> None:
    """The setting may be the network's or that of one container."""
    allow(host, r"^net\.ipv4\.")
    sysctl = {"sysctl": {"net.core.somaxconn": "77"}}
    before = container.sysctl(SOMAXCONN)

    with pytest.raises(CniFailure, match="net.core.somaxconn is not allowed"):
        add(host, container, conf(**(sysctl if where == "network" else {"args": {"cni": sysctl}})))

    assert container.sysctl(SOMAXCONN) == before


@NO_ALLOWLIST
def test_allowlist_that_is_not_a_regular_expression_allows_nothing(host: Host, container: Container) -> None:
    allow(host, "net.(")

    with pytest.raises(CniFailure):
        add(host, container, conf(sysctl={"net.core.somaxconn": "77"}))


# The interface

CHANGES = [
    {"mac": MAC},
    {"mtu": 1400},
    {"promisc": True},
    {"allmulti": True},
    pytest.param({"txQLen": 42}, marks=OLD_KEYS),
]


@pytest.mark.parametrize("change", [*CHANGES, ALL])
def test_interface_is_changed_until_del(host: Host, container: Container, change: dict[str, Any]) -> None:
    before = state(container)

    sent = add(host, container, conf(**change))
    assert state(container) == before | change

    host.cni("DEL", sent, container)
    assert state(container) == before


@pytest.mark.parametrize(
    "change", [{"allmulti": False}, pytest.param({"txQLen": 0}, marks=OLD_KEYS)], ids=["allmulti", "txQLen"]
)
def test_false_and_zero_are_set_as_well(host: Host, container: Container, change: dict[str, Any]) -> None:
    container.run("ip", "link", "set", "eth0", "allmulticast", "on")
    host.save_state()

    add(host, container, conf(**change))

    assert state(container) == state(container) | change


def test_empty_values_change_nothing(host: Host, container: Container) -> None:
    before = state(container)

    add(host, container, conf(mac="", mtu=0, promisc=False, sysctl={}))

    assert state(container) == before
    assert not host.exists(FILE)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"mac": "nonsense"}, "nonsense"),
        ({"mtu": "1400"}, "mtu"),
        ({"promisc": 1}, "promisc"),
        ({"sysctl": {"net.core.somaxconn": 77}}, "somaxconn"),
        ({"sysctl": ["net.core.somaxconn=77"]}, "sysctl"),
        ({"args": {"cni": {"allmulti": "yes"}}}, "allmulti"),
    ],
)
@ONE_CODE
def test_error_names_an_invalid_value(
    host: Host, container: Container, change: dict[str, Any], word: str
) -> None:
    with pytest.raises(CniFailure, match=word) as failure:
        add(host, container, conf(**change))

    assert failure.value.code == 7


def mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


@pytest.mark.parametrize("given", [0b0001, 0b0011, 0b0111, 0b1111])
def test_mac_is_that_of_the_most_specific_source(host: Host, container: Container, given: int) -> None:
    """The sources are the network, CNI_ARGS, the capability and args.cni; each overrides those before it."""
    keys: dict[str, Any] = {"mac": mac(0x10)}
    env = {}
    if given & 0b0010:
        env = {"CNI_ARGS": f"MAC={mac(0x11)}"}
    if given & 0b0100:
        keys["runtimeConfig"] = {"mac": mac(0x12)}
    if given & 0b1000:
        keys["args"] = {"cni": {"mac": mac(0x13)}}

    add(host, container, conf(**keys), **env)

    assert state(container)["mac"] == mac(0x10 + given.bit_length() - 1)


@pytest.mark.parametrize("own", [pytest.param({}, marks=PANICS), {"net.ipv4.ip_default_ttl": "60"}])
def test_args_of_the_container_override_those_of_the_network(
    host: Host, container: Container, own: dict[str, str]
) -> None:
    network: dict[str, Any] = {
        "mtu": 1300,
        "promisc": True,
        "allmulti": False,
        **({"sysctl": own} if own else {}),
    }
    args = {"mtu": 1350, "promisc": False, "allmulti": True, "sysctl": {"net.core.somaxconn": "77"}}

    add(host, container, conf(**network, args={"cni": args}))

    assert state(container) == state(container) | {"mtu": 1350, "promisc": False, "allmulti": True}
    assert container.sysctl(SOMAXCONN) == "77"
    assert not own or container.sysctl("net/ipv4/ip_default_ttl") == "60"


# The result


def test_result_is_passed_on_with_the_new_mac(host: Host, container: Container) -> None:
    sent = add(host, container, conf(mac=MAC))

    assert sent["prevResult"] == {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "veth1", "mac": "02:00:00:00:00:02"},
            {"name": "eth0", "mac": MAC, "sandbox": container.path},
        ],
        "ips": [{"address": "10.9.0.2/24"}],
    }


@pytest.mark.known_difference("the result has no MTU", here="it has the new MTU", right="SPEC.md, 5 Success")
def test_result_has_the_new_mtu(host: Host, container: Container) -> None:
    sent = add(host, container, conf("1.1.0", mtu=1400))

    assert [interface.get("mtu") for interface in sent["prevResult"]["interfaces"]] == [None, 1400]


@pytest.mark.known_difference(
    "also changes the MAC of an interface of the host in the result",
    here="changes that of the container's interface only",
    right="SPEC.md, 5 Success",
)
def test_interface_of_the_host_keeps_its_mac_in_the_result(host: Host, container: Container) -> None:
    """The host may have an eth0, too."""
    interfaces = [{"name": "eth0", "mac": OWN_MAC}, {"name": "eth0", "sandbox": container.path}]
    previous = {"cniVersion": "1.0.0", "interfaces": interfaces}

    sent = add(host, container, conf(mac=MAC, prevResult=previous))

    assert [interface["mac"] for interface in sent["prevResult"]["interfaces"]] == [OWN_MAC, MAC]


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_missing_previous_result_is_an_error(host: Host, container: Container, command: str) -> None:
    with pytest.raises(CniFailure, match="Required prevResult missing"):
        host.cni(command, conf(mtu=1400), container)
