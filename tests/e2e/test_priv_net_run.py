# SPDX-License-Identifier: Apache-2.0
"""priv-net-run: its networks, its options, and what it leaves behind."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.host.host import Host, Outside
from tests.support.host.leaks import HostState
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import CHECKOUT, REFERENCE, reference
from tests.support.runtimes.oci import (
    LOOPBACK,
    MYNET,
    NET_D,
    PASS_ON,
    RESULTS,
    bridge,
    calls,
    configure,
    external,
    leases,
)

RUN = str(CHECKOUT / "scripts" / "priv-net-run")


@pytest.fixture
def mynet(host: Host) -> Host:
    """Return a host with the two files that have been in use since 2016."""
    configure(host, **{"10-mynet.conf": MYNET, "99-loopback.conf": LOOPBACK})
    return host


def refused(host: Host, *argv: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Return the exit status and the only line of a run that fails before its command."""
    outcome = host.run(RUN, *argv, env=env, check=False)
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("priv-net-run: ") and outcome.stderr.count("\n") == 1, outcome.stderr
    return outcome.returncode, outcome.stderr


def addresses(output: str) -> dict[str, list[str]]:
    """Return the addresses of each interface in the output of `ip -j addr`."""
    return {
        link["ifname"]: [
            f"{address['local']}/{address['prefixlen']}"
            for address in link["addr_info"]
            if address["scope"] != "link"
        ]
        for link in json.loads(output)
    }


def test_command_is_on_the_networks_of_the_folder_only(mynet: Host) -> None:
    outcome = mynet.run(RUN, "ip", "-j", "addr")

    assert addresses(outcome.stdout) == {"lo": ["127.0.0.1/8", "::1/128"], "eth0": ["10.22.0.2/16"]}
    assert outcome.stderr == ""


def test_loopback_is_up_without_a_network_for_it(host: Host) -> None:
    configure(host, MYNET)

    assert "LOOPBACK,UP" in host.run(RUN, "ip", "link", "show", "lo").stdout


def test_empty_folder_means_the_default_network_and_is_reported(host: Host) -> None:
    outcome = host.run(RUN, "ip", "-j", "addr")

    assert addresses(outcome.stdout)["eth0"] == ["10.88.64.2/20"]
    assert outcome.stderr.startswith(f"priv-net-run: no network configuration in {NET_D}: ")
    assert outcome.stderr.count("\n") == 1


def test_command_reaches_the_outside(mynet: Host) -> None:
    mynet.outside()

    mynet.run(RUN, "ping", "-c1", "-W30", Outside.ADDRESS)


def test_networks_and_interfaces_are_chosen(host: Host) -> None:
    """The order is that of the options, not that of the folder."""
    configure(
        host, bridge("one", "10.1.0.0/24"), bridge("two", "10.2.0.0/24"), bridge("three", "10.3.0.0/24")
    )

    outcome = host.run(
        RUN, "--network", "three", "--network=one:data0", "--", "ip", "-j", "-4", "addr", "show", "up"
    )
    assert addresses(outcome.stdout) == {
        "lo": ["127.0.0.1/8"],
        "eth0": ["10.3.0.2/24"],
        "data0": ["10.1.0.2/24"],
    }


def test_empty_option_means_no_network(mynet: Host) -> None:
    """An empty request counts: the command must not reach any host."""
    outcome = mynet.run(RUN, "--network", "", "ip", "-j", "addr")

    assert addresses(outcome.stdout) == {"lo": ["127.0.0.1/8", "::1/128"]}


@pytest.mark.parametrize("way", ["option", "variable"])
def test_folder_of_networks_can_be_chosen(mynet: Host, way: str) -> None:
    mynet.write("/run/.host/net.d/10-other.conflist", json.dumps(bridge("other", "10.9.0.0/24")))
    argv = ("--conf-dir", "net.d") if way == "option" else ()
    env = {} if way == "option" else {"NETCONFPATH": "/run/.host/net.d"}

    # A relative path is relative to the caller's folder.
    outcome = mynet.run(RUN, *argv, "ip", "-j", "addr", cwd="/run/.host", env=base_environment() | env)
    assert addresses(outcome.stdout)["eth0"] == ["10.9.0.2/24"]


def test_malformed_file_is_named_and_hides_no_network(mynet: Host) -> None:
    mynet.write(f"{NET_D}/05-broken.conflist", "{")
    outcome = mynet.run(RUN, "ip", "-j", "addr")

    assert addresses(outcome.stdout)["eth0"] == ["10.22.0.2/16"]
    assert "05-broken.conflist" in outcome.stderr and outcome.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 125"], 125),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["sh", "-c", "kill -INT $$"], 130),
        (["--", "sh", "-c", "exit 3"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_exit_status_is_that_of_the_command(mynet: Host, argv: list[str], status: int) -> None:
    assert mynet.run(RUN, *argv, check=False).returncode == status


NOT_FOUND, NOT_EXECUTABLE, FAILED = 127, 126, 125


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        (["no-such-command"], NOT_FOUND, "no-such-command: no such command"),
        ([""], NOT_FOUND, "no such command"),
        (["./no-such-file"], NOT_FOUND, "./no-such-file"),
        (["/etc/passwd"], NOT_EXECUTABLE, "/etc/passwd"),
        (["/etc"], NOT_EXECUTABLE, "folder"),
        (["/run/no-interpreter"], NOT_FOUND, "interpreter"),
        (["/run/garbage"], NOT_EXECUTABLE, "/run/garbage"),
        ([], FAILED, "--help"),
        (["--"], FAILED, "--help"),
        (["--network"], FAILED, "--network"),
        (["--nonsense", "true"], FAILED, "--nonsense"),
        (["--network", "nowhere", "true"], FAILED, "nowhere"),
        (["--network", "../../etc", "true"], FAILED, "../../etc"),
        (["--network", "mynet:" + 16 * "x", "true"], FAILED, 16 * "x"),
        (["--network", "mynet:eth0", "--network", "mynet:eth1", "true"], FAILED, "mynet"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_bad_input_gets_one_line_and_its_status(
    mynet: Host, argv: list[str], status: int, says: str
) -> None:
    mynet.write("/run/no-interpreter", "#!/no/such/interpreter\n", 0o755)
    mynet.write("/run/garbage", "\x7fELF\0garbage", 0o755)
    mynet.leaves("file /run/no-interpreter", "file /run/garbage")

    line = refused(mynet, *argv)
    assert line[0] == status and says in line[1]


def test_script_without_an_interpreter_runs_as_in_a_shell(mynet: Host) -> None:
    mynet.write("/run/.host/script", 'echo "$0 $1"\n', 0o755)

    assert mynet.run(RUN, "/run/.host/script", "a b").stdout == "/run/.host/script a b\n"


def test_help_and_version_need_nothing(host: Host) -> None:
    assert "usage: priv-net-run" in host.run("setpriv", "--reuid=65534", RUN, "--help").stdout
    assert host.run(RUN, "--version").stdout.startswith("priv-net-run ")


def test_missing_right_to_make_namespaces_is_reported(mynet: Host) -> None:
    """In many containers root has user ID 0, but not this capability."""
    outcome = mynet.run(
        "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", RUN, "true", check=False
    )

    assert (outcome.returncode, outcome.stderr.count("\n")) == (125, 1)
    assert "Operation not permitted" in outcome.stderr


# What a run leaves behind


def test_failing_second_network_removes_the_first(host: Host) -> None:
    folder = external(host, "refuses", 'test $CNI_COMMAND = DEL || { echo "is broken" >&2; exit 1; }')
    failing = {"cniVersion": "1.0.0", "name": "two", "plugins": [{"type": "refuses"}]}
    configure(host, bridge("one", "10.1.0.0/24"), failing)

    status, line = refused(host, "--cni-path", folder, "touch", "/run/.host/ran")
    assert status == 125 and "refuses" in line and "is broken" in line
    assert not host.exists("/run/.host/ran")
    assert (leases(host, "one"), host.listdir(RESULTS)) == ([], [])


def test_network_with_a_missing_plugin_leaves_nothing(host: Host) -> None:
    """The error names the missing plugin only once."""
    missing = {"cniVersion": "1.0.0", "name": "two", "plugins": [{"type": "no-such-plugin"}]}
    configure(host, bridge("one", "10.1.0.0/24"), missing)

    status, line = refused(host, "true")
    assert status == 125 and line.count("no-such-plugin") <= 2
    assert (leases(host, "one"), host.listdir(RESULTS)) == ([], [])


@pytest.mark.parametrize(("status", "reported"), [(0, 125), (5, 5)])
def test_failing_delete_is_reported(host: Host, status: int, reported: int) -> None:
    """A status other than 0 is kept.  What could not be undone stays on record, and gc tries again."""
    folder = external(host, "stubborn", f"{PASS_ON}; [ $CNI_COMMAND = ADD ] || test -e {NET_D}/free")
    network = bridge("one", "10.1.0.0/24", dns={"nameservers": ["10.1.0.1"]})
    network["plugins"].append({"type": "stubborn"})
    configure(host, network)

    outcome = host.run(RUN, "--cni-path", folder, "sh", "-c", f"exit {status}", check=False)
    assert outcome.returncode == reported
    assert "stubborn" in outcome.stderr and outcome.stderr.count("\n") == 1
    host.write(f"{NET_D}/free", "")
    host.run(str(CHECKOUT / "scripts" / "cnihook"), "gc", "--cni-path", folder)
    assert host.listdir(RESULTS) == []
    host.leaves("file /run/cnihook/log/priv-*")


def test_two_runs_at_once_have_different_addresses(mynet: Host) -> None:
    started = [mynet.popen(RUN, "sh", "-c", "ip -j addr; cat", stdin=subprocess.PIPE) for _ in range(2)]
    seen = []
    for process in started:
        assert process.stdout
        seen += addresses(process.stdout.readline())["eth0"]

    assert sorted(seen) == ["10.22.0.2/16", "10.22.0.3/16"]
    for process in started:
        assert process.communicate("", timeout=30) == ("", "")


def test_namespace_has_a_name_during_the_run(mynet: Host) -> None:
    """`ip netns exec NAME tcpdump` works, and no other `ip` command fails because of the name."""
    script = "ip netns identify $$; ip -o link show eth0"
    outcome = mynet.run(RUN, "sh", "-c", script)

    assert outcome.stdout.startswith("priv-") and outcome.stderr == ""


def test_run_works_if_the_namespace_cannot_be_named(mynet: Host) -> None:
    """/run/netns may be read-only; the plugins still find the namespace."""
    mynet.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/run/netns")
    outcome = mynet.run(RUN, "ip", "-j", "addr")
    mynet.run("umount", "/run/netns")

    assert addresses(outcome.stdout)["eth0"] == ["10.22.0.2/16"]
    mynet.leaves("dir /run/mount")  # made by mount


def test_other_container_of_the_same_network_is_left_alone(mynet: Host) -> None:
    """The bridge is removed with its last port, not before."""
    first = mynet.popen(RUN, "sh", "-c", "echo up; read end", stdin=subprocess.PIPE)
    assert first.stdout and first.stdin
    assert first.stdout.readline() == "up\n"

    mynet.run(RUN, "ping", "-c1", "-W30", "10.22.0.2")
    assert "cni0" in mynet.links()
    first.communicate("\n", timeout=30)
    assert "cni0" not in mynet.links()


def test_background_process_of_the_command_continues(mynet: Host) -> None:
    """This is so after any command.  The process keeps neither priv-net-run nor the network."""
    mynet.run(RUN, "sh", "-c", "sleep 2147483647 > /dev/null 2>&1 & echo $! > /run/.host/pid", timeout=20)

    pid = mynet.read("/run/.host/pid").strip()
    assert "cni0" not in mynet.links()
    mynet.run("kill", pid)


def test_run_inside_another_run_works(mynet: Host) -> None:
    outcome = mynet.run(RUN, RUN, "--conf-dir", "/nowhere", "ip", "-j", "-4", "addr", "show", "eth0")

    assert addresses(outcome.stdout) == {"eth0": ["10.88.64.2/20"]}


@pytest.mark.parametrize("way", ["option", "variable"])
def test_reference_plugins_are_used_on_request(mynet: Host, way: str) -> None:
    mynet.leaves(*reference().leaves)
    reference().program("bridge")
    argv = ("--cni-path", str(REFERENCE)) if way == "option" else ()
    env = {} if way == "option" else {"CNI_PATH": str(REFERENCE)}

    outcome = mynet.run(RUN, *argv, "ip", "-j", "addr", env=base_environment() | env)
    assert addresses(outcome.stdout)["eth0"] == ["10.22.0.2/16"]
    # The reference plugins made the bridge, and they never remove it.
    assert "cni0" in mynet.links() and leases(mynet) == []


def test_plugins_find_their_programs_without_a_path(mynet: Host) -> None:
    """A plugin that calls iptables must not fail because of the caller's PATH."""
    folder = external(mynet, "needy", f"command -v iptables > /dev/null || exit 1; {PASS_ON}")
    network = bridge("one", "10.1.0.0/24")
    network["plugins"].append({"type": "needy"})
    configure(mynet, network)

    mynet.run(RUN, "--network", "one", "--cni-path", folder, "/bin/true", env={})
    assert calls(mynet) == ["needy ADD", "needy DEL"]


def test_run_starts_three_processes_and_one_program(mynet: Host, tmp_path: Path) -> None:
    """These are the guardian, the command, and what removes the links after the end."""
    log = tmp_path / "log"
    mynet.run("strace", "-fqq", "--trace=fork,vfork,clone,clone3,execve", f"--output={log}", RUN, "true")

    lines = log.read_text().splitlines()
    assert len([line for line in lines if "execve(" in line and "= 0" in line]) == 2
    assert len([line for line in lines if "fork(" in line or "clone" in line]) == 3


def test_repeated_runs_leave_no_more_than_one(mynet: Host) -> None:
    """The host after four runs is compared with the host after one."""
    mynet.run(RUN, "true")
    before = mynet.state()
    for _ in range(3):
        mynet.run(RUN, "true")

    assert sorted(lines(mynet.state()) - lines(before)) == []


def lines(state: HostState) -> frozenset[str]:
    return frozenset(line for line in state.lines if "last_reserved_ip" not in line)
