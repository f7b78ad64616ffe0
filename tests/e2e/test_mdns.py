# SPDX-License-Identifier: Apache-2.0
"""Multicast DNS between containers that request it and the LAN: what passes, and what does not."""

import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from cnihook.mdns.membership import BURST, RATE
from tests.support.commands.doctor import doctor, finds, fixes
from tests.support.commands.listings import shown, shown_json
from tests.support.commands.repair import cnihook
from tests.support.host.host import Host, Outside
from tests.support.plugins.cni import CHECKOUT
from tests.support.policies import LEAVES as POLICIES
from tests.support.policies import NO_BR_NETFILTER, Sandbox, network, refusal
from tests.support.runtimes.oci import configure
from tests.support.services.multicast import (
    FOLDER,
    LEAVES,
    QU,
    Speaker,
    answer,
    end_keeper,
    keepers,
    query,
    take_port,
)
from tests.support.wait import wait_for

ATTACHMENTS = f"{FOLDER}/attachments"


@pytest.fixture
def outside(host: Host) -> Iterator[Outside]:
    """Return a machine of the LAN."""
    host.run("sh", "-c", NO_BR_NETFILTER)
    host.leaves(*LEAVES, *POLICIES)
    yield host.outside()


def wait_for_end(host: Host) -> None:
    wait_for(lambda: not keepers(host), "the keeper ends")
    assert host.listdir(ATTACHMENTS) == []


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_container_finds_the_lan_and_is_found(host: Host, outside: Outside, kind: str) -> None:
    configure(host, network(kind), network("bridge", "back", 8))
    one = Sandbox(host, "one", networks="front", mdns="true")
    other = Sandbox(host, "other", networks="front")
    third = Sandbox(host, "third", networks="back")
    (pid,) = keepers(host)
    (name,) = host.listdir(ATTACHMENTS)
    paths = ("socket", "attachments", f"attachments/{name}")
    modes = [stat.S_IMODE(os.stat(host.root / FOLDER[1:] / path).st_mode) for path in paths]
    assert modes == [0o600, 0o700, 0o600]

    for version, gateway, uplink in ((4, "10.7.0.1", Outside.HOST), (6, "fe80:", "fe80:")):
        with ExitStack() as stack:
            inside, lan = Speaker(one.space, version), Speaker(outside, version, "up0")
            silent, apart = Speaker(other.space, version), Speaker(third.space, version)
            for each in (inside, lan, silent, apart):
                stack.enter_context(closing(each))
            # What asks for an answer to the sender asks all, as the answer would go to the host.
            inside.send(query("_ipp._tcp.local", cls=QU | 1))
            heard = lan.hears(query("_ipp._tcp.local"))
            assert heard.source.startswith(uplink) and (heard.port, heard.hops) == (5353, 255)
            lan.send(answer("printer.local"))
            heard = inside.hears(answer("printer.local"))
            assert heard.source.startswith(gateway) and (heard.port, heard.hops) == (5353, 255)
            # The other way round.
            lan.send(query("_http._tcp.local"))
            inside.hears(query("_http._tcp.local"))
            inside.send(answer("container.local") + b"and more")
            lan.hears(answer("container.local"))
            # The kernel cuts and joins large messages.
            large = query(questions=150) + query()[12:] * 149
            inside.send(large)
            lan.hears(large)

            lan.heard(), inside.heard(), silent.heard()
            wrong = [b"", b"\0" * 11, query(flags=0x2800), query(flags=3), query(questions=2)]
            wrong += [query(questions=3000) + query()[12:] * 600]  # longer than 9000 bytes
            wrong += [struct.pack("!6H", 0, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\x01\0\x01"]  # refers to itself
            inside.send(*wrong)
            lan.send(*wrong)
            silent.send(query("of.another.container"))  # it has not requested it
            apart.send(query("of.another.network"))
            with closing(Speaker(one.space, version, port=5354)) as legacy:
                legacy.send(answer("from.another.port"))
                lan.hears_nothing()
                # A program that is not in the group, such as dig, gets the answers alone.
                legacy.send(query("one.shot.local"))
                packet = lan.hears(query("one.shot.local"))
                assert packet.port not in (5353, 5354)
                lan.send(answer("one.shot.local"), to=packet)
                legacy.hears(answer("one.shot.local"))
            assert [each.data for each in inside.heard() if each.data != query("of.another.container")] == []
            assert apart.heard() == []

    (shown_record,) = (each["record"] for each in shown_json(host, "inspect", "one")["attachments"])
    assert shown_record["mdns"] == {"uplinks": []}
    assert "multicast DNS by the interfaces with a default route" in shown(host, "inspect", "one")
    assert keepers(host) == [pid]
    for sandbox in (other, third, one):
        sandbox.stop()
    wait_for_end(host)


def test_killed_keeper_and_changed_links_are_restored(host: Host, outside: Outside) -> None:
    configure(host, network())
    one, two = (Sandbox(host, name, mdns="up0") for name in ("one", "two"))
    lan, inside = Speaker(outside, 4, "up0"), Speaker(one.space)

    def passes(name: str) -> None:
        inside.send(query(name))
        assert lan.hears(query(name)).source == Outside.HOST

    passes("first.local")
    end_keeper(host)
    inside.send(query("second.local"))
    lan.hears_nothing()
    assert finds(host, "mdns-down", "container one, front eth0: ", "two") == "cnihook repair --all"
    host.write(f"{ATTACHMENTS}/front-two-eth0", "{")
    repaired = cnihook(host, "repair", "--all").stdout.splitlines()
    assert repaired == [
        "repaired one: front eth0: the keeper of multicast DNS did not run",
        "repaired two: front eth0: its request for multicast DNS was not on file",
    ]
    passes("third.local")
    assert doctor(host, status=0) == []
    for damage in ("", "{"):
        (host.root / ATTACHMENTS[1:] / "front-two-eth0").unlink()
        if damage:
            host.write(f"{ATTACHMENTS}/front-two-eth0", damage)
        fixes(host, "mdns-request")
    # Other programs change the links; the process notices it.
    host.run("ip", "address", "del", f"{Outside.HOST}/24", "dev", "up0")
    host.run("ip", "link", "del", "br-front")
    cnihook(host, "repair", "--all")
    host.run("ip", "address", "add", f"{Outside.HOST}/24", "dev", "up0")
    host.run("ip", "route", "add", "default", "via", Outside.ADDRESS)
    inside.close()
    inside = Speaker(one.space)

    def arrives() -> bool:
        inside.send(query(f"{len(sent)}.local"))
        sent.append(1)
        return bool(lan.heard())

    sent: list[int] = []
    wait_for(arrives, "the new links are used")

    # The next container starts it for all.
    end_keeper(host)
    three = Sandbox(host, "three", mdns="true")
    passes("fourth.local")
    host.run("ip", "route", "del", "default")
    host.run("ip", "-6", "route", "del", "default")
    two.stop()
    one.space.destroy()  # without poststop

    def is_collected() -> bool:
        cnihook(host, "gc")  # its process may be ending at this moment
        return host.listdir(ATTACHMENTS) == ["front-three-eth0"]

    wait_for(is_collected, "what the container had is released")

    def lacks_uplink() -> bool:
        return any(line.startswith("mdns-uplink: container three, ") for line in doctor(host))

    wait_for(lacks_uplink, "it is noticed that no interface has a default route")
    end_keeper(host)
    host.write(f"{ATTACHMENTS}/front-gone-eth0", "{")
    host.write(f"{ATTACHMENTS}/front-lost-eth0", host.read(f"{ATTACHMENTS}/front-three-eth0"))
    host.run("ip", "route", "add", "default", "via", Outside.ADDRESS)
    host.run("ip", "-6", "route", "add", "default", "via", Outside.ADDRESS6)
    fixes(host, "mdns-down")
    cnihook(host, "gc")
    # Another program has the port for itself, until it ends.
    end_keeper(host)
    host.leaves("file /run/cnihook/log/three")  # a failed repair is kept
    with host.socket(socket.SOCK_DGRAM) as holder:
        take_port(holder)
        failed = cnihook(host, "repair", "three")
        assert failed.returncode and "multicast DNS: listen on br-front port 5353: " in failed.stderr
        assert [line.partition(": ")[0] for line in doctor(host, status=1)] == ["mdns-interface"] * 2
    assert doctor(host, status=0) == []
    assert host.listdir(ATTACHMENTS) == ["front-three-eth0"]
    three.stop()
    assert host.listdir(ATTACHMENTS) == []
    for each in (lan, inside):
        each.close()


SECOND = """\
mount -n -t tmpfs tmpfs /run/cnihook
mkdir -p /run/cnihook/mdns/attachments
echo '{"container": "c", "interface": "br1", "addresses": ["10.9.0.2"], "uplinks": ["lan1"]}' > \
/run/cnihook/mdns/attachments/net-c-eth0
exec "$@"
"""


def test_reflectors_on_one_lan_cause_no_storm(host: Host, outside: Outside) -> None:
    """Another host has the same program, and a third machine sends all that it hears again."""
    configure(host, network())
    one = Sandbox(host, "one", mdns="true")
    second, box = host.container("second"), host.container("box")
    host.leaves("in second: *", "in box: *")
    host.run(
        *("ip", "-batch", "-"),
        input="""\
netns exec outside ip address flush dev up0
netns exec outside ip link add lan type bridge
netns exec outside ip link set lan up
netns exec outside ip address add 198.51.100.2/24 dev lan
netns exec outside ip link set up0 master lan
netns exec outside ip link add port1 master lan up type veth peer name lan1 netns second
netns exec second ip address add 198.51.100.9/24 dev lan1
netns exec second ip link set lan1 up
netns exec second ip link add br1 type bridge
netns exec second ip address add 10.9.0.1/24 dev br1
netns exec second ip link set br1 up
netns exec second ip link add port2 master br1 up type veth peer name eth0 netns box
netns exec box ip address add 10.9.0.2/24 dev eth0
netns exec box ip link set eth0 up
""",
    )
    command = ("/usr/bin/python3", "-IS", str(CHECKOUT / "scripts" / "cnihook"), "mdns-keeper")
    keeper = second.popen("unshare", "--mount", "sh", "-c", SECOND, "sh", *command)
    lan, near, far = Speaker(outside, 4, "lan"), Speaker(one.space), Speaker(box)

    def arrives() -> bool:
        far.send(query(f"{len(sent)}.local"))
        sent.append(1)
        return bool(near.heard())

    sent: list[int] = []
    wait_for(arrives, "the containers of both hosts find each other")
    lan.heard()
    near.send(query("near.local"))
    far.hears(query("near.local"))
    far.send(answer("far.local"))
    near.hears(answer("far.local"))
    # The third machine: each message is on each link once more, and no host sends it again.
    for message in lan.heard():
        lan.send(message.data, message.data)
    near.hears_nothing()
    far.hears_nothing()
    assert lan.heard() == []

    # Too many messages: a part of them passes.
    began = time.monotonic()
    near.send(*(query(f"{number}.storm.local") for number in range(3000)))
    time.sleep(1)
    passed, seconds = len(lan.heard()), time.monotonic() - began
    assert 0 < passed <= BURST + RATE * seconds
    keeper.kill()
    keeper.communicate()
    for each in (lan, near, far):
        each.close()
    one.stop()
    assert host.listdir(ATTACHMENTS) == []


def test_policies_decide_before_it(host: Host, outside: Outside) -> None:
    """Multicast DNS of a container arrives at the host, so a list must have the host as a peer."""
    configure(host, network())
    responder = Speaker(host, 4, "up0")  # of the host, which shares its port, as avahi-daemon does
    closed = Sandbox(host, "closed", mdns="true", egress="dns,10.0.0.0/8")
    opened = Sandbox(host, "opened", mdns="true", egress="host:5353/udp")
    with closing(Speaker(outside, 4, "up0")) as lan, closing(Speaker(closed.space)) as one:
        one.send(query("closed.local"))
        lan.hears_nothing()
        with closing(Speaker(opened.space)) as two:
            two.send(query("opened.local"))
            lan.hears(query("opened.local"))
            lan.send(answer("opened.local"))
            two.hears(answer("opened.local"))
        with closing(Speaker(opened.space, 6)) as two, closing(Speaker(outside, 6, "up0")) as lan6:
            two.send(query("opened.local"))  # its link-local address is not one of its own
            lan6.hears_nothing()
    responder.hears(answer("opened.local"))
    responder.close()
    closed.stop()
    opened.stop()
    assert host.listdir(ATTACHMENTS) == []


def test_requests_that_cannot_be_served_are_refused_in_one_line(host: Host, outside: Outside) -> None:
    host.leaves("file /run/cnihook/log/*")
    internal = network("bridge", "internal", 4)
    internal["plugins"].append({"type": "firewall", "ingressPolicy": "same-bridge", "forwardPolicy": "none"})
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.3.0.0/24"}]]}
    flat = {"type": "bridge", "bridge": "br-flat", "ipam": ipam}
    names = [internal]
    for name, plugin in (
        ("lan", {"type": "macvlan", "master": "up0", "ipam": ipam}),
        ("dummy", {"type": "dummy", "ipam": ipam}),
        ("flat", flat),
        ("vlan", flat | {"vlan": 5, "isGateway": True}),
        ("lo", {"type": "loopback"}),
        ("front", network()["plugins"][0]),
    ):
        names.append({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]})
    configure(host, *names)
    for number, (on, mdns, why) in enumerate(
        (
            ("lan", "true", "a container of the plugin macvlan is on the LAN already"),
            ("dummy", "true", "the plugin dummy leads to no interface of the host"),
            ("internal", "true", "it is internal: its containers have no way out of the host"),
            ("flat", "true", "its bridge has no gateway, so the host is not in it"),
            ("vlan", "true", "its bridge separates VLANs"),
            ("lo", "true", "multicast DNS: the container is on no network"),
            ("front", "up1", "the host has no interface 'up1'; there are: lo, up0"),
            ("front", "lo", "lo leads to no LAN"),
            ("front", "up0,", "interface name is empty"),
        )
    ):
        assert why in refusal(host, f"c{number}", networks=on, mdns=mdns)
    assert not host.exists(FOLDER)


def test_command_of_priv_net_run_is_on_the_lan(host: Host, outside: Outside) -> None:
    configure(host, network())
    with closing(Speaker(outside, 4, "up0")) as lan:
        script = "import socket; s = socket.socket(2, 2); s.setsockopt(0, 33, 255); s.bind(('', 5353));"
        script += f" s.sendto({query('run.local')!r}, ('224.0.0.251', 5353))"
        run = str(CHECKOUT / "scripts" / "priv-net-run")
        host.run(run, "--network", "front", "--mdns", "/usr/bin/python3", "-c", script)
        lan.hears(query("run.local"))
        # Another program has the port for itself: the command does not start, and nothing is left.
        holder = host.socket(socket.SOCK_DGRAM)
        take_port(holder)
        failed = host.run(run, "--network", "front", "--mdns=up0", "true", check=False)
        assert failed.returncode and "multicast DNS: listen on " in failed.stderr
        assert "Address already in use" in failed.stderr and len(failed.stderr.splitlines()) == 1
        holder.close()
    assert host.listdir(ATTACHMENTS) == []
