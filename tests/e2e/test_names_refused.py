# SPDX-License-Identifier: Apache-2.0
"""Names that a container requests and that would mislead its neighbours, on each way of requesting them."""

from pathlib import Path

import pytest

from tests.support.host.host import Host
from tests.support.host.namespace import Failed
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, Running, Runtime, bridge, call_hook, configure, make_rootfs

PRIV_NET_RUN = str(CHECKOUT / "scripts" / "priv-net-run")


@pytest.fixture
def networks(host: Host) -> None:
    """Configure front, and wide, which allows names with a dot."""
    configure(
        host,
        bridge("front", "10.1.0.0/24"),
        bridge("wide", "10.2.0.0/24") | {"cnihook": {"dottedAliases": True}},
    )
    host.write("/etc/hosts", "127.0.1.1 this-host.example.org this-host # local\n127.0.0.1 localhost db\n")
    host.leaves("file /etc/hosts", "file /run/cnihook/log/*")


REFUSED = [
    (("--network-alias", "localhost"), "the name is reserved"),
    (("--network-alias", "host.docker.internal"), "the name is reserved"),
    (("--network", "front:alias=ip6-localhost"), "the name is reserved"),
    (("--hostname", "localhost.localdomain"), "the name is reserved"),
    (("--network-alias", "THIS-HOST"), "a name of the host"),
    (("--network", "wide:alias=this-host.example.org"), "a name of the host"),
    (("--hostname", "this-host"), "a name of the host"),
    (("--network", "front", "--network-alias", "updates.example.org"), "does not allow aliases with a dot"),
    (
        ("--network", "front,wide", "--network-alias", "updates.example.org"),
        "does not allow aliases with a dot",
    ),
    (("--network", "front:alias=updates.example.org"), '"cnihook": {"dottedAliases": true}'),
]


@pytest.mark.parametrize(("options", "reason"), REFUSED)
def test_misleading_name_is_refused(
    host: Host, networks: None, options: tuple[str, ...], reason: str
) -> None:
    """The hook's flags and annotations and a plain command fail before anything is set up."""
    container = host.container(process=True)
    state = {"id": "c1", "pid": container.pid, "bundle": "/nowhere"}
    outcome = call_hook(host, "createRuntime", state, *options)
    assert outcome.returncode == 1 and reason in outcome.stderr
    annotations = {
        f"cnihook.{'networks' if key == '--network' else key[2:]}": value
        for key, value in zip(options[::2], options[1::2], strict=True)
    }
    outcome = call_hook(host, "createRuntime", state | {"annotations": annotations})
    assert outcome.returncode == 1 and reason in outcome.stderr
    command = host.run(PRIV_NET_RUN, *options, "true", check=False)
    assert command.returncode != 0 and reason in command.stderr
    assert host.links() == {"lo"}


def test_name_of_the_node_is_refused(host: Host, networks: None) -> None:
    node = host.run("uname", "-n").stdout.strip()
    command = host.run(PRIV_NET_RUN, "--network-alias", node, "true", check=False)

    assert command.returncode != 0 and "a name of the host" in command.stderr


def test_name_with_a_dot_needs_a_network_that_allows_it(
    host: Host, runtime: Runtime, networks: None, tmp_path: Path
) -> None:
    """On other networks, such a host name is in the container's own file only, and its log reports it."""

    def start(container_id: str, *options: str) -> Running:
        runtime.rootfs = make_rootfs(tmp_path / container_id)
        return runtime.run(container_id, *options, hostname=f"{container_id}.example.net")

    one = start("one", "--network", "front:alias=db", "--network", "wide:alias=db.example.org")
    two = start("two", "--network", "front")
    three = start("three", "--network", "wide")

    own = one.exec("cat", "/etc/hosts")
    assert (
        "10.1.0.2\tone.example.net one db\t" in own
        and "10.2.0.2\tone.example.net one db.example.org\t" in own
    )
    assert "10.1.0.2\tone db\t" in two.exec("cat", "/etc/hosts")
    assert "10.2.0.2\tone.example.net one db.example.org\t" in three.exec("cat", "/etc/hosts")
    assert "not known as one.example.net on front: it has a dot" in one.log
    assert "on wide" not in three.log.replace("attached", "")


@pytest.mark.parametrize("hostname", ["localhost", "this-host"])
def test_reserved_host_name_of_config_json_stays_in_its_own_file(
    runtime: Runtime, networks: None, tmp_path: Path, hostname: str
) -> None:

    runtime.rootfs = make_rootfs(tmp_path / "one")
    one = runtime.run("one", "--network", "front", hostname=hostname)
    runtime.rootfs = make_rootfs(tmp_path / "two")
    two = runtime.run("two", "--network", "front")

    assert f"10.1.0.2\t{hostname} one\t" in one.exec("cat", "/etc/hosts")
    assert "10.1.0.2\tone\t" in two.exec("cat", "/etc/hosts")
    assert f"not known as {hostname} on front: " in one.log


def test_alias_of_a_running_container_is_refused_and_leaves_nothing(
    host: Host, runtime: Runtime, networks: None, tmp_path: Path
) -> None:
    """The alias is its ID: the hook, attach and a plain command reject it."""

    runtime.rootfs = make_rootfs(tmp_path / "one")
    one = runtime.run("one", "--network", "front")
    before = one.exec("cat", "/etc/hosts")
    runtime.rootfs = make_rootfs(tmp_path / "two")
    with pytest.raises(Failed):
        runtime.run("two", "--network", "front", "--network-alias", "one")
    runtime.run("three", hooks={})
    attach = host.run(CNIHOOK, "attach", "three", "--network", "front:alias=one", check=False)
    command = host.run(PRIV_NET_RUN, "--network", "front:alias=one", "true", check=False)

    for outcome in (attach, command):
        assert outcome.returncode != 0 and "it is the ID of container one" in outcome.stderr
    assert one.exec("cat", "/etc/hosts") == before
    assert host.listdir("/var/lib/cni/results") == ["front-one-eth0"]


def test_validate_knows_the_key(host: Host, networks: None) -> None:
    assert "no problem found" in host.run(CNIHOOK, "validate").stdout
    host.write(
        "/etc/cni/net.d/30-bad.conf", '{"name": "x", "type": "loopback", "cnihook": {"dotedAliases": 1}}'
    )
    outcome = host.run(CNIHOOK, "validate", check=False)
    assert outcome.returncode == 1 and '"dotedAliases" is unknown' in outcome.stdout
