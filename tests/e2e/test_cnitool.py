# SPDX-License-Identifier: Apache-2.0
"""cnihook add, del, check, gc, status: what a script for cnitool finds, and what is better."""

import json
import subprocess
from typing import Any

import pytest

from tests.support.cni import CHECKOUT, REFERENCE
from tests.support.host import Container, Host
from tests.support.namespace import base_environment
from tests.support.oci import NET_D, RESULTS, leases
from tests.support.traffic import connect

CNIHOOK = str(CHECKOUT / "scripts" / "cnihook")
# sha512 of /var/run/netns/testing, as cnitool shortens it
TESTING = ("/var/run/netns/testing", "cnitool-77383ca0a0715733ca6f")
NETWORK: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "mynet",
    "plugins": [
        {
            "type": "bridge",
            "isGateway": True,
            "ipMasq": True,
            "capabilities": {"ips": True, "mac": True},
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]},
        },
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
    ],
}


@pytest.fixture
def testing(host: Host) -> Container:
    """A namespace of the name that cnitool's manual has, and a network."""
    configure(host)
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    return host.container("testing")


def configure(host: Host, **keys: Any) -> None:
    host.write(f"{NET_D}/10-mynet.conflist", json.dumps(NETWORK | keys))
    host.leaves(f"file {NET_D}/*")


def cnihook(
    host: Host, *words: str, check: bool = True, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = host.run(CNIHOOK, *words, env=base_environment() | (env or {}), check=check)
    assert "Traceback" not in done.stderr
    return done


def refused(host: Host, *words: str) -> str:
    """The one line on stderr of a command that has to fail."""
    done = cnihook(host, *words, check=False)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.count("\n") == 1
    return done.stderr


def ids(host: Host) -> list[str]:
    """Of the containers that are on record."""
    return [name.split("-", 1)[1].rsplit("-", 1)[0] for name in host.listdir(RESULTS)]


def test_a_script_for_cnitool_runs_by_changing_one_word(host: Host, testing: Container) -> None:
    path, container_id = TESTING
    added = cnihook(host, "add", "mynet", path)

    result = json.loads(added.stdout)
    assert (result["cniVersion"], added.stderr) == ("1.1.0", "")
    assert result["ips"][0]["address"] == "10.9.0.2/24"
    assert ids(host) == [container_id]
    assert connect(testing, host, "10.9.0.1") == "10.9.0.2"
    assert testing.sysctl("net/core/somaxconn") == "500"
    for command in ("check", "status"):
        done = cnihook(host, command, "mynet", path)
        assert (done.stdout, done.stderr) == ("", "")
    for _ in range(2):
        assert cnihook(host, "del", "mynet", path).stdout == ""
    assert testing.links() == {"lo"} and leases(host) == []


def test_cnitools_environment_is_understood(host: Host, testing: Container) -> None:
    host.write("/run/own/10-mynet.conflist", json.dumps(NETWORK))
    host.leaves("dir /run/own", "file /run/own/*")
    env = {
        "NETCONFPATH": "/run/own",
        "CNI_IFNAME": "data0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web",
        "CAP_ARGS": json.dumps({"ips": ["10.9.0.77"], "mac": "02:00:00:00:00:77", "bandwidth": {}}),
    }
    host.run("rm", f"{NET_D}/10-mynet.conflist")
    cnihook(host, "add", "mynet", TESTING[0], env=env)

    assert testing.addresses("data0") == ["10.9.0.77/24"]
    assert testing.link("data0")["address"] == "02:00:00:00:00:77"
    cnihook(host, "check", "mynet", TESTING[0], env=env)
    cnihook(host, "del", "mynet", TESTING[0], env={"NETCONFPATH": "/run/own", "CNI_IFNAME": "data0"})
    assert leases(host) == []


def test_an_option_goes_before_its_variable(host: Host, testing: Container) -> None:
    words = ("mynet", TESTING[0], "--ifname", "eth7")
    env = {"CNI_IFNAME": "data0", "CNI_ARGS": "nonsense", "CAP_ARGS": "nonsense"}
    cnihook(host, "add", *words, "--cni-args=", "--capability-args", '{"ips": ["10.9.0.9"]}', env=env)

    assert testing.addresses("eth7") == ["10.9.0.9/24"]
    cnihook(host, "del", *words, env=env | {"CNI_ARGS": "", "CAP_ARGS": ""})


@pytest.mark.needs("ip")
def test_an_explicit_path_has_the_reference_plugins_do_it(host: Host, testing: Container) -> None:
    if not REFERENCE.is_dir():
        pytest.skip(f"no plugins in {REFERENCE}")
    configure(host, cniVersion="1.0.0", plugins=[NETWORK["plugins"][0] | {"ipMasq": False}])
    host.leaves("empty bridges")
    cnihook(host, "add", "mynet", "testing", env={"CNI_PATH": str(REFERENCE)})

    assert host.exists("/sys/class/net/cni0")
    cnihook(host, "del", "mynet", "testing")
    assert host.exists("/sys/class/net/cni0"), "the reference leaves its bridge, and it was the reference"


def test_a_namespace_is_a_path_a_name_or_a_process(host: Host, testing: Container) -> None:
    sleeper = host.container(process=True)
    assert sleeper.pid
    cnihook(host, "add", "mynet", "testing")
    cnihook(host, "add", "mynet", str(sleeper.pid))
    cnihook(host, "add", "mynet", "/run/netns/testing", "-i", "eth1", check=False)

    assert sleeper.addresses("eth0") == ["10.9.0.3/24"]
    cnihook(host, "del", "mynet", str(sleeper.pid))
    for path, ifname in (("testing", "eth0"), ("/run/netns/testing", "eth1")):
        cnihook(host, "del", "mynet", path, "-i", ifname)
    assert host.listdir(RESULTS) == []


def test_a_configuration_may_come_in_a_file_or_on_stdin(host: Host, testing: Container) -> None:
    host.write("/run/net.json", json.dumps(NETWORK | {"name": "filed"}))
    host.leaves("file /run/net.json")
    cnihook(host, "add", "--network-config", "/run/net.json", "testing")
    cnihook(host, "del", "--network-config", "/run/net.json", "testing")

    host.run(CNIHOOK, "add", "--network-config=-", "testing", input=json.dumps(NETWORK | {"name": "typed"}))
    assert host.listdir(RESULTS) == [f"typed-{TESTING[1]}-eth0"]
    cnihook(host, "del", "typed", "testing")


def test_del_needs_neither_configuration_nor_namespace(host: Host, testing: Container) -> None:
    cnihook(host, "add", "mynet", "testing")
    host.run("rm", f"{NET_D}/10-mynet.conflist")
    testing.destroy()

    cnihook(host, "del", "mynet", "testing")
    assert leases(host) == [] and host.listdir(RESULTS) == []


def test_a_failed_add_leaves_nothing(host: Host, testing: Container) -> None:
    configure(host, plugins=[*NETWORK["plugins"], {"type": "tuning", "sysctl": {"net.nonsense": "1"}}])

    assert "net/nonsense" in refused(host, "add", "mynet", "testing")
    assert testing.links() == {"lo"} and leases(host) == [] and host.listdir(RESULTS) == []


def test_errors_as_json_keep_their_code(host: Host, testing: Container) -> None:
    for words, code in (
        (("add", "other", "testing"), 7),
        (("check", "mynet", "testing"), 3),
        (("add", "mynet", "testing", "--capability-args", "[]"), 4),
        (("add", "mynet", "nowhere"), 999),
    ):
        done = cnihook(host, *words, "--json", check=False)
        told = json.loads(done.stdout)
        assert (done.returncode, done.stderr, told["code"]) == (1, "", code)
        assert told["msg"].startswith(f"{words[0]} {words[1]}: ")


def test_status_reports_exhausted_range_if_asked(host: Host, testing: Container) -> None:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/30"}]], "statusWhenFull": True}
    configure(host, plugins=[NETWORK["plugins"][0] | {"ipam": ipam}])
    cnihook(host, "status", "mynet")
    cnihook(host, "add", "mynet", "testing")

    told = json.loads(cnihook(host, "status", "mynet", "--json", check=False).stdout)
    assert told["code"] == 50 and "10.9.0.1-10.9.0.2" in told["msg"]
    cnihook(host, "del", "mynet", "testing")


def test_check_tells_the_first_difference(host: Host, testing: Container) -> None:
    cnihook(host, "add", "mynet", "testing")
    testing.run("ip", "address", "flush", "dev", "eth0")

    assert "10.9.0.2/24" in refused(host, "check", "mynet", "testing")
    cnihook(host, "del", "mynet", "testing")


def test_gc_of_a_network_keeps_what_is_alive(host: Host, testing: Container) -> None:
    dead = host.container("dead")
    for name in ("testing", "dead"):
        cnihook(host, "add", "mynet", name)
    dead.destroy()

    told = cnihook(host, "gc", "mynet", "--dry-run").stdout
    assert told.startswith("would release cnitool-") and told.endswith(" mynet eth0 10.9.0.3/24\n")
    assert len(leases(host)) == 2
    assert cnihook(host, "gc", "mynet", "ignored").stdout == told.replace("would release", "released")
    assert leases(host) == ["10.9.0.2"]
    assert connect(testing, host, "10.9.0.1") == "10.9.0.2"
    cnihook(host, "del", "mynet", "testing")


def test_gc_of_a_network_may_be_told_what_to_keep(host: Host, testing: Container) -> None:
    host.container("other")
    for name in ("testing", "other"):
        cnihook(host, "add", "mynet", name)

    cnihook(host, "gc", "mynet", "--keep", TESTING[1])
    assert ids(host) == [TESTING[1]] and leases(host) == ["10.9.0.2"]
    cnihook(host, "gc", "mynet", "--all")
    assert ids(host) == [] and testing.links() == {"lo"}


def test_an_interface_is_added_once(host: Host, testing: Container) -> None:
    cnihook(host, "add", "mynet", "testing")

    assert "has eth0 already" in refused(host, "add", "mynet", "testing")
    cnihook(host, "del", "mynet", "testing")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("add",), "NETWORK is missing"),
        (("add", "mynet"), "NETNS is missing"),
        (("add", "mynet", "testing", "-i", "a/b"), "interface name"),
        (("add", "mynet", "testing", "--timeout", "0"), "no time in seconds"),
        (("add", "mynet", "testing", "--cni-args", "a"), "invalid CNI_ARGS pair 'a'"),
        (("add", "mynet", "testing", "--capability-args", "{"), "--capability-args is not JSON"),
        (("add", "mynet", "/proc/1/ns/net"), "namespace of the host"),
        (("gc", "--all"), "need a NETWORK"),
        (("add", "--network-config", "/nowhere", "testing"), "/nowhere: No such file"),
    ],
)
def test_words_that_make_no_sense_are_one_line(
    host: Host, testing: Container, words: tuple[str, ...], told: str
) -> None:
    done = cnihook(host, *words, check=False)

    assert done.returncode in (1, 2) and done.stdout == ""
    assert done.stderr.count("\n") == 1 and told in done.stderr
    assert testing.links() == {"lo"}
