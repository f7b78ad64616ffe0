# SPDX-License-Identifier: Apache-2.0
"""Names in the policies of real containers: reached by name, and nothing else is."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnihook.resolver import listing, message
from tests.support.commands.doctor import doctor, finds
from tests.support.commands.repair import cnihook
from tests.support.host.host import Host, Outside
from tests.support.host.namespace import Failed
from tests.support.plugins.cni import CHECKOUT
from tests.support.policies import LEAVES, NO_BR_NETFILTER, Sandbox, apply, network, refusal, tcp
from tests.support.runtimes.oci import RESULTS, Runtime, configure, make_rootfs
from tests.support.services.resolving import end_keeper, exchange, keepers, records_of
from tests.support.wait import SILENCE, wait_for

pytestmark = pytest.mark.needs("dnsmasq")

PAGE = CHECKOUT / "cnihook" / "pages" / "policy-names.md"
GATEWAYS = ("10.7.0.1", "fd07::1")
# The recipe of the page.
(RECIPE,) = re.findall(r"priv-net-run --egress (\S+) COMMAND", PAGE.read_text())
SITES = {"pypi.org": "198.51.100.4", "files.pythonhosted.org": "198.51.100.5", "github.com": "198.51.100.6"}
NAMES = records_of(
    [
        *((name, [address]) for name, address in SITES.items()),
        ("index.example", [Outside.ADDRESS, Outside.ADDRESS6]),
        ("files.example", [Outside.ADDRESS]),
        ("other.example", ["198.51.100.3"]),
    ]
)


@pytest.fixture
def outside(host: Host, tmp_path: Path) -> Iterator[Outside]:
    """Return a machine with a DNS server, which the host uses."""
    host.run("sh", "-c", NO_BR_NETFILTER)
    host.leaves(*LEAVES, "process *dns-keeper*", "dir /run/cnihook/resolver*", "process dnsmasq *")
    host.leaves("file /run/cnihook/resolver/socket", "file /etc/resolv.conf")
    machine = host.outside()
    for number in range(3, 7):
        machine.run("ip", "address", "add", f"198.51.100.{number}/24", "dev", "up0")
    host.write("/etc/resolv.conf", f"nameserver {Outside.ADDRESS}\n")
    log = tmp_path / "dnsmasq.log"
    server = machine.popen(
        *("dnsmasq", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--keep-in-foreground"),
        *("--user=root", "--pid-file=", f"--log-facility={log}", "--local=/#/", *NAMES),
    )
    wait_for(lambda: log.exists() and "started" in log.read_text(), "dnsmasq serves")
    yield machine
    server.kill()
    server.communicate()


def look_up(one: Sandbox, name: str, at: str, kind: int = message.A) -> "tuple[int, list[str]]":
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    with one.space.socket(socket.SOCK_DGRAM, family) as client:
        client.connect((at, 53))
        answer = exchange(client, name, kind, tcp=False)
    return answer.rcode, answer.addresses


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_container_reaches_listed_names_and_nothing_else(host: Host, outside: Outside, kind: str) -> None:
    configure(host, network(kind))
    one = Sandbox(host, "one", egress="name:index.example:80/tcp,name:*.example.org")
    other = Sandbox(host, "other")
    server, server6 = Outside.ADDRESS, Outside.ADDRESS6

    for at in GATEWAYS:
        assert not tcp(one.space, outside, server, 80, expected=False) or at != GATEWAYS[0]
        assert look_up(one, "index.example", at) == (message.NOERROR, [server])
        assert look_up(one, "other.example", at) == (message.REFUSED, [])
    assert tcp(one.space, outside, server, 80, expected=True)
    assert not tcp(one.space, outside, server6, 80, expected=False), "it was not looked up"
    assert look_up(one, "index.example", GATEWAYS[0], message.AAAA) == (message.NOERROR, [server6])
    assert tcp(one.space, outside, server6, 80, expected=True)
    # Not on another port, not by another server, not the host, not a neighbour.
    assert not tcp(one.space, outside, server, 81, expected=False)
    assert not tcp(one.space, outside, "198.51.100.3", 80, expected=False)
    with one.space.socket(socket.SOCK_DGRAM) as client:
        client.settimeout(SILENCE)
        client.connect((server, 53))
        with pytest.raises(OSError):
            exchange(client, "other.example", message.A, tcp=False)
    assert not tcp(one.space, host, GATEWAYS[0], 22, expected=False)
    assert not tcp(one.space, other.space, other.v4, 80, expected=False)
    explained = cnihook(host, "policy", "explain", "one", f"{server}:80")
    assert explained.returncode == 0, explained

    other.stop()
    one.stop()
    wait_for(lambda: not keepers(host), "the resolver ends")
    assert "policy" not in host.nft() and "resolver" not in host.nft()


def test_recipe_of_the_page_reaches_three_sites_and_nothing_else(host: Host, outside: Outside) -> None:
    """The sandbox has the capabilities of root: raw frames and foreign sources do not help it."""
    configure(host, network())
    box, other = Sandbox(host, "box", egress=RECIPE), Sandbox(host, "other")

    for name, address in SITES.items():
        assert not tcp(box.space, outside, address, 443, expected=False)
        assert look_up(box, name, GATEWAYS[0]) == (message.NOERROR, [address])
        assert tcp(box.space, outside, address, 443, expected=True)
        assert not tcp(box.space, outside, address, 80, expected=False)
    for name in ("other.example", "www.pypi.org", "evil.github.com", "org"):
        assert look_up(box, name, GATEWAYS[0]) == (message.REFUSED, [])
    for address in ("198.51.100.3", Outside.ADDRESS, Outside.ADDRESS6):
        assert not tcp(box.space, outside, address, 443, expected=False)
    assert not tcp(box.space, host, Outside.HOST, 443, expected=False)
    assert not tcp(box.space, other.space, other.v4, 443, expected=False)
    box.space.run("ip", "address", "add", f"{other.v4}/32", "dev", "eth0")
    with outside.socket(socket.SOCK_DGRAM) as receiver, box.space.socket(socket.SOCK_DGRAM) as sender:
        receiver.bind((SITES["pypi.org"], 443))
        receiver.settimeout(SILENCE)
        sender.bind((other.v4, 0))
        sender.sendto(b"x", (SITES["pypi.org"], 443))
        with pytest.raises(TimeoutError):
            receiver.recv(16)
    for each in (box, other):
        each.stop()


def test_containers_of_real_runtimes_resolve_by_their_gateway(
    host: Host, outside: Outside, runtime: Runtime, tmp_path: Path
) -> None:
    """The first name is looked up right after the start, by the C library of the container."""
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    configure(host, network())
    box = runtime.run("box", annotations={"cnihook.egress": "name:index.example:icmp"})

    text = box.exec("cat", "/etc/resolv.conf")
    assert text == f"# cnihook: as asked for\nnameserver {GATEWAYS[0]}\nnameserver {GATEWAYS[1]}\n"
    assert f"({Outside.ADDRESS})" in box.exec("ping", "-4", "-c1", "-W30", "index.example")
    script = "ping -4 -c1 -W1 other.example || ping -4 -c1 -W1 198.51.100.3 || echo closed"
    assert box.exec("sh", "-c", script).splitlines()[-1] == "closed"
    runtime.delete("box")
    wait_for(lambda: not keepers(host), "the resolver ends")
    assert "resolver" not in host.nft()


@pytest.mark.parametrize("runtime", ["runc"], indirect=True)
def test_running_container_gets_the_resolver_with_names_in_its_list(
    host: Host, outside: Outside, runtime: Runtime, tmp_path: Path
) -> None:
    """The earlier servers return with a list without names, and at the end of a list for a time."""
    configure(host, network())
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    box = runtime.run("box", "--network", "front", "--dns", Outside.ADDRESS)
    usual = box.exec("cat", "/etc/resolv.conf")

    def limit(text: str, *more: str) -> str:
        process = cnihook(host, "update", "box", "--egress", text, *more)
        assert process.returncode == 0, process
        return box.exec("cat", "/etc/resolv.conf")

    assert [line for line in limit("name:index.example:icmp").splitlines() if line[:1] != "#"] == [
        f"nameserver {gateway}" for gateway in GATEWAYS
    ]
    box.exec("ping", "-c1", "-W30", "index.example")
    assert host.read("/run/cnihook/resolver/containers/box").count(f'"{Outside.ADDRESS}"') == 1
    with pytest.raises(Failed):
        box.exec("ping", "-c1", "-W1", "files.example")
    assert limit("all") == usual
    limit("name:files.example", "--for", "1s")
    record = f"{RESULTS}/front-box-eth0"
    wait_for(lambda: "until" not in json.loads(host.read(record))["cnihook"], "the end of the list")
    assert box.exec("cat", "/etc/resolv.conf") == usual
    box.exec("ping", "-c1", "-W30", "index.example")
    runtime.delete("box")
    wait_for(lambda: not keepers(host), "the resolver ends")


def binds(one: socket.socket, address: str) -> bool:
    """Bind a socket to the port of the keeper, which closes its own a little after it is gone."""
    try:
        one.bind((address, listing.PORT))
    except OSError:
        return False
    return True


def test_lists_of_host_and_container_both_limit_names(host: Host, outside: Outside) -> None:
    """A policy changes while the container runs; a name is in every list, or it is refused."""
    configure(host, network())
    rule = {"to": ["name:index.example", "name:files.example"]}
    policy: dict[str, Any] = {
        "name": "box",
        "select": {"labels": {"role": "box"}},
        "egress": {"allow": [rule]},
    }
    assert apply(host, policy)[0] == "new policy box: label:role=box"
    one = Sandbox(host, "one", label="role=box")
    two = Sandbox(host, "two", label="role=box", egress="name:index.example,name:other.example")

    names = ("index.example", "files.example", "other.example")
    assert [look_up(one, name, GATEWAYS[0])[0] for name in names] == [0, 0, 5]
    assert [look_up(two, name, GATEWAYS[0])[0] for name in names] == [0, 5, 5]
    for to, status in (("files.example:443", 0), ("other.example:443", 1)):
        explained = cnihook(host, "policy", "explain", "one", to)
        assert explained.returncode == status and f"-> {to}/tcp: " in explained.stdout
    policy["tests"] = [{"from": "one", "to": "other.example:443", "expect": "allow"}]
    assert "tests[0]: from one to other.example:443: expected allow" in apply(host, policy, status=1)[0]
    policy["tests"] = [{"from": "one", "to": "other.example:443", "expect": "deny"}]
    rule["to"] = ["name:files.example"]
    apply(host, policy)
    assert [look_up(one, name, GATEWAYS[0])[0] for name in names] == [5, 0, 5]
    assert tcp(one.space, outside, Outside.ADDRESS, 80, expected=True)

    def denied() -> "set[str]":
        return {each["peer"] for each in json.loads(cnihook(host, "denied", "one", "--json").stdout)}

    wait_for(lambda: denied() == {"index.example", "other.example"}, "the names are on record")
    end_keeper(host)
    repaired = cnihook(host, "repair", "--all").stdout
    assert "the resolver of names did not run" in repaired
    assert look_up(one, "files.example", GATEWAYS[0])[0] == 0
    end_keeper(host)
    host.leaves("file /run/cnihook/log/one")  # a failed repair is kept
    with host.socket(socket.SOCK_DGRAM) as other:
        wait_for(lambda: binds(other, GATEWAYS[0]), "the keeper's socket is closed")
        assert f"listen for names at {GATEWAYS[0]}" in cnihook(host, "repair", "one").stderr
        remedy = finds(host, "resolver-gateway", f"does not listen at {GATEWAYS[0]}")
        assert remedy == "cnihook repair --all"  # of both containers
    assert cnihook(host, "repair", "one").returncode == 0
    assert look_up(one, "files.example", GATEWAYS[0])[0] == 0
    host.write("/run/cnihook/resolver/containers/one", "{")
    assert finds(host, "resolver-listing", "container one: ") == "cnihook repair one"
    assert "the list of names in its policy was damaged" in cnihook(host, "repair", "one").stdout
    assert doctor(host, status=0) == []
    assert look_up(one, "files.example", GATEWAYS[0])[0] == 0
    policy |= {"mode": "audit", "tests": []}
    apply(host, policy)
    assert look_up(one, "other.example", GATEWAYS[0]) == (0, ["198.51.100.3"])
    assert denied() == {"index.example", "other.example"}
    cnihook(host, "policy", "delete", "box")
    assert [look_up(two, name, GATEWAYS[0])[0] for name in names] == [0, 5, 0]
    one.stop()
    two.space.destroy()  # without poststop
    cnihook(host, "gc")
    wait_for(lambda: not keepers(host), "the resolver ends")
    assert host.listdir("/run/cnihook/resolver/containers") == [] and "resolver" not in host.nft()


def test_wrong_names_are_rejected(host: Host, outside: Outside) -> None:
    host.leaves("file /run/cnihook/log/*")
    configure(host, network())
    assert "is not a DNS name" in refusal(host, "a", egress="name:a..b")
    assert "for egress only" in refusal(host, "b", ingress="name:x.example")
    assert "name:x.example" in refusal(host, "c", egress="x.example")
    deny = {"name": "d", "select": {}, "egress": {"deny": [{"to": ["name:x.example"]}]}}
    assert "has a DNS name" in apply(host, deny, status=1)[0]


def test_resolv_conf_of_a_command_names_the_gateway(host: Host, outside: Outside) -> None:
    configure(host, network())
    script = "cat /etc/resolv.conf; getent ahosts index.example; getent ahosts other.example"
    argv = ("--network", "front", "--egress", "name:index.example", "sh", "-c", script)
    output = host.run(str(CHECKOUT / "scripts" / "priv-net-run"), *argv, check=False).stdout
    servers = f"nameserver {GATEWAYS[0]}\nnameserver {GATEWAYS[1]}\n"
    assert servers in output
    assert Outside.ADDRESS in output.split("nameserver")[-1] and "198.51.100.3" not in output

    # A later command in the namespace that the first one leaves.
    program = str(CHECKOUT / "scripts" / "priv-net-run")
    host.run(program, *argv[:4], "--netns", "box", "true")
    joined = host.run(program, "--netns", "box", "sh", "-c", script, check=False).stdout
    assert servers in joined and Outside.ADDRESS in joined
    host.run(program, "--netns", "box", "--delete")
