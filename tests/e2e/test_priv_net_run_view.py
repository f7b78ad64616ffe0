# SPDX-License-Identifier: Apache-2.0
"""priv-net-run: what the command sees.  Only the network and its names differ from the caller's view."""

from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import LOOPBACK, MYNET, NET_D, bridge, configure

RUN = str(CHECKOUT / "scripts" / "priv-net-run")


@pytest.fixture
def mynet(host: Host) -> Host:
    configure(host, **{"10-mynet.conf": MYNET, "99-loopback.conf": LOOPBACK})
    return host


@pytest.mark.parametrize(
    "env",
    [
        {"PATH": "/usr/sbin:/usr/bin"},
        {
            "PATH": "/usr/sbin:/usr/bin",
            "LC_ALL": "C",
            "ODD": "\udcff\n=",
            "EMPTY": "",
            "PYTHONPATH": "/nowhere",
        },
    ],
    ids=["sparse", "odd"],
)
def test_command_has_the_callers_environment(mynet: Host, env: dict[str, str]) -> None:
    """No variable is added, not even those that an interpreter sets for itself."""
    assert mynet.run(RUN, "env", "-0", env=env).stdout == mynet.run("env", "-0", env=env).stdout


def test_command_has_the_callers_folder_umask_and_signals(mynet: Host) -> None:
    """Python ignores SIGPIPE; a command that inherited this would run for ever in a pipeline."""
    show = "pwd; umask; grep -E '^(SigIgn|SigBlk|SigPnd|ShdPnd)' /proc/self/status"
    before = "umask 002; trap '' INT USR1; cd /usr; "

    outside = mynet.run("sh", "-c", f'{before} sh -c "{show}"').stdout
    inside = mynet.run("sh", "-c", f'{before} {RUN} sh -c "{show}"').stdout
    assert inside == outside and outside.startswith("/usr\n0002\n")


def test_arguments_pass_unchanged(mynet: Host) -> None:
    odd = ["", "a b", "*", "--network", "'", "\udcff", "--"]

    assert mynet.run(RUN, "printf", "%s\\n", *odd).stdout.split("\n")[:-1] == odd


def test_open_and_closed_files_are_inherited(mynet: Host) -> None:
    """Otherwise a closed stdin could become a socket of priv-net-run, and an inherited file be lost."""
    show = "for fd in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/self/fd/$fd && echo $fd; done >&7"
    script = "exec 7>&1 <&- >&- 9</etc/passwd; "

    outside = mynet.run("sh", "-c", f"{script} sh -c '{show}'").stdout
    assert mynet.run("sh", "-c", f"{script} {RUN} sh -c '{show}'").stdout == outside
    assert outside.split()[-2:] == ["7", "9"] and "0" not in outside


def test_pipes_end_with_the_command(mynet: Host) -> None:
    """No side of a pipeline may wait for a copy of its end in priv-net-run."""
    assert mynet.run("sh", "-c", f"printf 'a\\nb\\n' | {RUN} cat | cat").stdout == "a\nb\n"
    assert mynet.run("sh", "-c", f"yes | {RUN} head -n 2; echo $?").stdout == "y\ny\n0\n"


def test_output_that_the_command_closes_is_closed(mynet: Host) -> None:
    """The command continues, but its reader has to see the end at once."""
    command = "echo last; echo $$ > /run/.host/pid; exec >&-; exec sleep 2147483647"
    running = mynet.popen(
        "sh", "-c", f"{RUN} sh -c '{command}' | (cat; echo end; kill $(cat /run/.host/pid))"
    )

    assert running.communicate(timeout=30) == ("last\nend\n", "")


def test_sys_shows_the_private_namespace_and_keeps_its_mounts(mynet: Host) -> None:
    """A new sysfs alone would hide the cgroups, and break programs that read them."""
    mynet.run("mount", "-t", "tmpfs", "tmpfs", "/sys/fs/fuse")
    mynet.run("mkdir", "/sys/fs/fuse/inner")
    mynet.run("mount", "-t", "tmpfs", "tmpfs", "/sys/fs/fuse/inner")
    show = "grep -o ' /sys[^ ]*' /proc/self/mountinfo | sort; ls /sys/fs/cgroup; echo; ls /sys/class/net"

    outside = mynet.run("sh", "-c", show).stdout
    inside = mynet.run(RUN, "sh", "-c", show).stdout
    mynet.run("umount", "/sys/fs/fuse/inner", "/sys/fs/fuse")
    mynet.leaves("dir /run/mount")  # made by mount

    assert "/sys/fs/fuse/inner" in outside and "/sys/fs/cgroup" in outside
    assert inside.partition("\n\n")[0] == outside.partition("\n\n")[0]
    assert inside.partition("\n\n")[2] == "eth0\nlo\n"


def test_read_only_sys_stays_read_only(mynet: Host) -> None:
    """The caller, such as a container's runtime, had a reason to make it so."""
    show = "grep ' /sys ' /proc/self/mounts; ls /sys/class/net"
    script = f'mount -o remount,bind,ro /sys && exec {RUN} sh -c "{show}"'

    lines = mynet.run("unshare", "--mount", "sh", "-c", script).stdout.splitlines()
    mynet.leaves("dir /run/mount")  # made by mount
    assert lines[0].split()[3].startswith("ro") and lines[1:] == ["eth0", "lo"]


def test_run_works_in_a_user_namespace(host: Host) -> None:
    """Mounts of the parent namespace are locked there, and cannot be unmounted."""
    script = (
        f"mount -t tmpfs t /run && mount -t tmpfs t /var/lib/cni && {RUN} ls /sys/class/net /sys/fs/cgroup"
    )

    outcome = host.run("unshare", "-Urmn", "sh", "-c", script)
    host.leaves("dir /run/mount")  # made by mount
    assert outcome.stdout.startswith("/sys/class/net:\neth0\nlo\n\n/sys/fs/cgroup:\n")
    assert len(outcome.stdout.split()) > 5


DNS = {
    "nameservers": ["10.1.0.1"],
    "domain": "one.test",
    "search": ["a.test", "b.test"],
    "options": ["ndots:2"],
}


def test_resolv_conf_has_the_servers_of_all_networks(host: Host) -> None:
    """The servers are in the order of the networks; the host's own file is not changed."""
    configure(
        host,
        bridge("one", "10.1.0.0/24", dns=DNS),
        bridge("two", "10.2.0.0/24", dns={"nameservers": ["10.2.0.1", "10.1.0.1"], "search": ["b.test"]}),
    )
    host.write("/etc/resolv.conf", "nameserver 192.0.2.1\n")
    host.leaves("file /etc/resolv.conf")

    script = "cat /etc/resolv.conf; cat /proc/1/root/etc/resolv.conf; stat -c %a /etc/resolv.conf"
    outcome = host.run("sh", "-c", f"umask 077; exec {RUN} sh -c '{script}'")
    assert outcome.stdout.splitlines() == [
        "domain one.test",
        "search a.test b.test",
        "nameserver 10.1.0.1",
        "nameserver 10.2.0.1",
        "options ndots:2",
        "nameserver 192.0.2.1",
        "644",
    ]
    assert host.read("/etc/resolv.conf") == "nameserver 192.0.2.1\n"


def test_resolv_conf_may_be_a_link_to_a_link(host: Host) -> None:
    """systemd-resolved and resolvconf make such links; each path of the file has to show the same."""
    configure(host, bridge("one", "10.1.0.0/24", dns=DNS))
    host.write("/run/.host/real/resolv.conf", "nameserver 192.0.2.1\n")
    host.run("ln", "-s", "/run/.host/real/resolv.conf", "/run/.host/link")
    host.run("ln", "-sf", "../run/.host/link", "/etc/resolv.conf")
    host.leaves("file /etc/resolv.conf")

    outcome = host.run(RUN, "cat", "/etc/resolv.conf", "/run/.host/real/resolv.conf")
    assert outcome.stdout.count("nameserver 10.1.0.1\n") == 2 and "192.0.2.1" not in outcome.stdout
    assert host.read("/run/.host/real/resolv.conf") == "nameserver 192.0.2.1\n"


def test_resolv_conf_of_the_host_is_used_if_no_network_has_dns(mynet: Host) -> None:
    mynet.write("/etc/resolv.conf", "nameserver 192.0.2.1\n")
    mynet.leaves("file /etc/resolv.conf")

    outcome = mynet.run(RUN, "sh", "-c", "cat /etc/resolv.conf; grep resolv.conf /proc/self/mountinfo; :")
    assert outcome.stdout == "nameserver 192.0.2.1\n"


def test_servers_of_the_host_are_kept_if_a_network_has_search_domains_only(host: Host) -> None:
    """A file without a server means one on the loopback, where none listens."""
    configure(host, bridge("one", "10.1.0.0/24", dns={"search": ["a.test"]}))
    host.write("/etc/resolv.conf", "# comment\nnameserver 192.0.2.1\noptions edns0\n")
    host.leaves("file /etc/resolv.conf")

    assert host.run(RUN, "cat", "/etc/resolv.conf").stdout == "search a.test\nnameserver 192.0.2.1\n"


def test_stub_resolver_on_the_hosts_loopback_is_replaced(mynet: Host) -> None:
    """systemd-resolved listens at 127.0.0.53 of the host, which the command cannot reach."""
    mynet.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
    mynet.write("/run/systemd/resolve/resolv.conf", "nameserver 192.0.2.7\nsearch here\n")
    mynet.leaves("file /etc/resolv.conf", "* /run/systemd*")

    assert mynet.run(RUN, "cat", "/etc/resolv.conf").stdout == "nameserver 192.0.2.7\nsearch here\n"


@pytest.mark.parametrize(
    ("server", "options", "shown"),
    [
        ("192.0.2.1", ["--network", "inner"], "192.0.2.1"),
        ("127.0.0.1", ["--network", "mynet"], "127.0.0.1"),
        ("192.0.2.1", ["--network", "inner", "--dns", "2001:db8::1"], "2001:db8::1"),
        ("192.0.2.1", ["--network", "mynet"], ""),
        ("192.0.2.1", ["--network", "inner", "--network", "mynet"], ""),
        ("10.23.0.1", ["--network", "inner"], ""),
        ("192.0.2.1", ["--network", "inner", "--dns", "127.0.0.1"], ""),
        ("192.0.2.1", ["--network", "lo"], ""),
    ],
)
def test_server_that_cannot_be_reached_is_reported(
    mynet: Host, server: str, options: list[str], shown: str
) -> None:
    """The networks have no default route, or the server is on the host's loopback."""
    configure(mynet, bridge("inner", "10.23.0.0/24"))
    mynet.write(f"{NET_D}/20-lo.conf", '{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}')
    mynet.write("/etc/resolv.conf", f"nameserver {server}\n")
    mynet.leaves("file /etc/resolv.conf")

    line = f"priv-net-run: the command cannot resolve names: its networks do not lead to {shown} of /etc/"
    errors = mynet.run(RUN, *options, "true").stderr
    assert errors.startswith(line) and errors.count("\n") == 1 if shown else errors == ""


def test_missing_resolv_conf_is_reported_and_not_created(host: Host) -> None:
    configure(host, bridge("one", "10.1.0.0/24", dns=DNS))
    host.run("rm", "-f", "/etc/resolv.conf")
    host.leaves("file /etc/resolv.conf")

    outcome = host.run(RUN, "echo", "ran")
    assert outcome.stdout == "ran\n"
    assert "/etc/resolv.conf" in outcome.stderr and outcome.stderr.count("\n") == 1
    assert not Path(f"{host.root}/etc/resolv.conf").exists()
