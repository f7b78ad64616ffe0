# SPDX-License-Identifier: Apache-2.0
"""cnihook add, del, check, gc, status: compatible with cnitool, and what they do beyond it."""

import json
import subprocess
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.host.namespace import base_environment
from tests.support.host.sockets import connect
from tests.support.plugins.cni import CHECKOUT, REFERENCE
from tests.support.runtimes.oci import NET_D, RESULTS, leases

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
    """Create a network and a namespace with the name from cnitool's manual."""
    configure(host)
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    return host.container("testing")


def configure(host: Host, **keys: Any) -> None:
    host.write(f"{NET_D}/10-mynet.conflist", json.dumps(NETWORK | keys))
    host.leaves(f"file {NET_D}/*")


def cnihook(
    host: Host, *words: str, check: bool = True, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    result = host.run(CNIHOOK, *words, env=base_environment() | (env or {}), check=check)
    assert "Traceback" not in result.stderr
    return result


def refused(host: Host, *words: str) -> str:
    """Return the one line on stderr of a command that has to fail."""
    result = cnihook(host, *words, check=False)
    assert (result.returncode, result.stdout) == (1, "") and result.stderr.count("\n") == 1
    return result.stderr


def ids(host: Host) -> list[str]:
    """Return the IDs of the containers on record."""
    return [name.split("-", 1)[1].rsplit("-", 1)[0] for name in host.listdir(RESULTS)]


def test_cnitool_script_runs_with_cnihook_instead(host: Host, testing: Container) -> None:
    path, container_id = TESTING
    added = cnihook(host, "add", "mynet", path)

    result = json.loads(added.stdout)
    assert (result["cniVersion"], added.stderr) == ("1.1.0", "")
    assert result["ips"][0]["address"] == "10.9.0.2/24"
    assert ids(host) == [container_id]
    assert connect(testing, host, "10.9.0.1") == "10.9.0.2"
    assert testing.sysctl("net/core/somaxconn") == "500"
    for command in ("check", "status"):
        check = cnihook(host, command, "mynet", path)
        assert (check.stdout, check.stderr) == ("", "")
    for _ in range(2):
        assert cnihook(host, "del", "mynet", path).stdout == ""
    assert testing.links() == {"lo"} and leases(host) == []


def test_cnitool_environment_variables_are_used(host: Host, testing: Container) -> None:
    host.write("/run/own/10-mynet.conflist", json.dumps(NETWORK))
    host.leaves("dir /run/own", "file /run/own/*")
    env = {
        "NETCONFPATH": "/run/own",
        "CNI_IFNAME": "data0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web",
        "CAP_ARGS": json.dumps({"ips": ["10.9.0.77"], "mac": "02:00:00:00:00:77", "bandwidth": {}}),
    }
    host.run("rm", f"{NET_D}/10-mynet.conflist")
    added = cnihook(host, "add", "mynet", TESTING[0], env=env)

    unused = "cnihook: add: CAP_ARGS: none of the plugins of network mynet has the capability bandwidth\n"
    assert added.stderr == unused
    assert testing.addresses("data0") == ["10.9.0.77/24"]
    assert testing.link("data0")["address"] == "02:00:00:00:00:77"
    cnihook(host, "check", "mynet", TESTING[0], env=env)
    cnihook(host, "del", "mynet", TESTING[0], env={"NETCONFPATH": "/run/own", "CNI_IFNAME": "data0"})
    assert leases(host) == []


def test_option_overrides_its_environment_variable(host: Host, testing: Container) -> None:
    words = ("mynet", TESTING[0], "--ifname", "eth7")
    env = {"CNI_IFNAME": "data0", "CNI_ARGS": "nonsense", "CAP_ARGS": "nonsense"}
    cnihook(host, "add", *words, "--cni-args=", "--capability-args", '{"ips": ["10.9.0.9"]}', env=env)

    assert testing.addresses("eth7") == ["10.9.0.9/24"]
    cnihook(host, "del", *words, env=env | {"CNI_ARGS": "", "CAP_ARGS": ""})


@pytest.mark.needs("ip")
def test_cni_path_selects_reference_plugins(host: Host, testing: Container) -> None:
    if not REFERENCE.is_dir():
        pytest.skip(f"no plugins in {REFERENCE}")
    configure(host, cniVersion="1.0.0", plugins=[NETWORK["plugins"][0] | {"ipMasq": False}])
    host.leaves("empty bridges")
    cnihook(host, "add", "mynet", "testing", env={"CNI_PATH": str(REFERENCE)})

    assert host.exists("/sys/class/net/cni0")
    cnihook(host, "del", "mynet", "testing")
    assert host.exists("/sys/class/net/cni0"), "the reference leaves its bridge, so the reference was used"


def test_namespace_is_a_path_a_name_or_a_pid(host: Host, testing: Container) -> None:
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


def test_configuration_is_read_from_file_or_stdin(host: Host, testing: Container) -> None:
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


def test_failed_add_leaves_nothing(host: Host, testing: Container) -> None:
    configure(host, plugins=[*NETWORK["plugins"], {"type": "tuning", "sysctl": {"net.nonsense": "1"}}])

    assert "net/nonsense" in refused(host, "add", "mynet", "testing")
    assert testing.links() == {"lo"} and leases(host) == [] and host.listdir(RESULTS) == []


def test_json_errors_have_the_cni_code(host: Host, testing: Container) -> None:
    for words, code in (
        (("add", "other", "testing"), 7),
        (("check", "mynet", "testing"), 3),
        (("add", "mynet", "testing", "--capability-args", "[]"), 4),
        (("add", "mynet", "nowhere"), 999),
    ):
        result = cnihook(host, *words, "--json", check=False)
        report = json.loads(result.stdout)
        assert (result.returncode, result.stderr, report["code"]) == (1, "", code)
        assert report["msg"].startswith(f"{words[0]} {words[1]}: ")


def test_status_reports_exhausted_range_if_asked(host: Host, testing: Container) -> None:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/30"}]], "statusWhenFull": True}
    configure(host, plugins=[NETWORK["plugins"][0] | {"ipam": ipam}])
    cnihook(host, "status", "mynet")
    cnihook(host, "add", "mynet", "testing")

    report = json.loads(cnihook(host, "status", "mynet", "--json", check=False).stdout)
    assert report["code"] == 50 and "10.9.0.1-10.9.0.2" in report["msg"]
    cnihook(host, "del", "mynet", "testing")


def test_check_reports_the_first_difference(host: Host, testing: Container) -> None:
    cnihook(host, "add", "mynet", "testing")
    testing.run("ip", "address", "flush", "dev", "eth0")

    assert "10.9.0.2/24" in refused(host, "check", "mynet", "testing")
    cnihook(host, "del", "mynet", "testing")


def test_gc_of_a_network_keeps_live_attachments(host: Host, testing: Container) -> None:
    dead = host.container("dead")
    for name in ("testing", "dead"):
        cnihook(host, "add", "mynet", name)
    dead.destroy()

    output = cnihook(host, "gc", "mynet", "--dry-run").stdout
    assert output.startswith("would release cnitool-") and output.endswith(" mynet eth0 10.9.0.3/24\n")
    assert len(leases(host)) == 2
    assert cnihook(host, "gc", "mynet", "ignored").stdout == output.replace("would release", "released")
    assert leases(host) == ["10.9.0.2"]
    assert connect(testing, host, "10.9.0.1") == "10.9.0.2"
    cnihook(host, "del", "mynet", "testing")


def test_gc_of_a_network_keeps_ids_given_by_keep(host: Host, testing: Container) -> None:
    host.container("other")
    for name in ("testing", "other"):
        cnihook(host, "add", "mynet", name)

    cnihook(host, "gc", "mynet", "--keep", TESTING[1])
    assert ids(host) == [TESTING[1]] and leases(host) == ["10.9.0.2"]
    cnihook(host, "gc", "mynet", "--all")
    assert ids(host) == [] and testing.links() == {"lo"}


def test_second_add_of_an_interface_is_refused(host: Host, testing: Container) -> None:
    cnihook(host, "add", "mynet", "testing")

    assert "has eth0 already" in refused(host, "add", "mynet", "testing")
    cnihook(host, "del", "mynet", "testing")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("add",), "NETWORK is missing"),
        (("add", "mynet"), "NETNS is missing"),
        (("add", "mynet", "testing", "-i", "a/b"), "interface name"),
        (("add", "mynet", "testing", "--timeout", "0"), "not a time in seconds"),
        (("add", "mynet", "testing", "--cni-args", "a"), "invalid CNI_ARGS pair 'a'"),
        (("add", "mynet", "testing", "--capability-args", "{"), "--capability-args is not JSON"),
        (("add", "mynet", "testing", "--capability-args", '{"x": 1}'), "has the capability x; add"),
        (("add", "mynet", "/proc/1/ns/net"), "namespace of the host"),
        (("gc", "--all"), "need a NETWORK"),
        (("add", "--network-config", "/nowhere", "testing"), "/nowhere: No such file"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(
    host: Host, testing: Container, words: tuple[str, ...], problem: str
) -> None:
    result = cnihook(host, *words, check=False)

    assert result.returncode in (1, 2) and result.stdout == ""
    assert result.stderr.count("\n") == 1 and problem in result.stderr
    assert testing.links() == {"lo"}
