# SPDX-License-Identifier: Apache-2.0
"""Configurations as administrators write them: malformed files are reported, the others are used."""

import json
from typing import Any

import pytest

from tests.support.host.faults import fault
from tests.support.host.host import Container, Host
from tests.support.runtimes.oci import LOOPBACK, MYNET, NET_D, RESULTS, bridge, call_hook, configure, leases

PLUGINS: list[Any] = [{"type": "bridge"}]


def state_of(container: Container) -> dict[str, Any]:
    return {"id": container.name, "pid": container.pid, "bundle": "/nowhere"}


def listed(**keys: Any) -> str:
    """Return a valid list changed by `keys`; a key with the value `...` is left out."""
    conf = {"cniVersion": "1.0.0", "name": "bad", "plugins": PLUGINS} | keys
    return json.dumps({key: value for key, value in conf.items() if value is not ...})


def plugin(**keys: Any) -> str:
    return listed(plugins=[{"type": "bridge"}, {"type": "bridge"} | keys])


# The text of a file, and what its error message must contain.
MALFORMED = {
    "empty": ("", "error parsing configuration"),
    "truncated": ('{"cniVersion": "1.0.0", "name": ', "error parsing configuration"),
    "trailing data": (listed() + "}", "error parsing configuration"),
    "comment": ("// mine\n" + listed(), "error parsing configuration"),
    "byte order mark": ("\ufeff" + listed(), "error parsing configuration"),
    "trailing comma": ('{"name": "bad", "type": "bridge",}', "error parsing configuration"),
    "not UTF-8": ("\udcff\udcfe", "error parsing configuration"),
    "deep": ("[" * 200_000, "error parsing configuration"),
    "list": ("[]", "is an object, not a list"),
    "null": ("null", "is an object, not null"),
    "text": ('"bridge"', "is an object, not a string"),
    "nothing in it": ("{}", 'no "type", no "plugins"'),
    "cniVersion number": (listed(cniVersion=1), '"cniVersion"'),
    "cniVersion list": (listed(cniVersion=["1.0.0"]), '"cniVersion"'),
    "cniVersions no list": (listed(cniVersions="1.0.0"), "cniVersions"),
    "cniVersions number": (listed(cniVersions=[1]), "cniVersions"),
    "cniVersions word": (listed(cniVersions=["1.0.0", "new"]), "cniVersions"),
    "name missing": (listed(name=...), "name"),
    "name null": (listed(name=None), "name"),
    "name number": (listed(name=5), '"name" must be a string, not an integer'),
    "name empty": (listed(name=""), "name"),
    "name path": (listed(name="../bad"), "network name"),
    "name slash": (listed(name="/etc"), "network name"),
    "name newline": (listed(name="bad\nname"), "network name"),
    "name blank": (listed(name="bad name"), "network name"),
    "name long": (listed(name="b" * 256), "name"),
    "disableCheck word": (listed(disableCheck="perhaps"), "disableCheck"),
    "disableCheck number": (listed(disableCheck=1), "disableCheck"),
    "disableGC list": (listed(disableGC=[]), "disableGC"),
    "loadOnlyInlinedPlugins word": (listed(loadOnlyInlinedPlugins="maybe"), "loadOnlyInlinedPlugins"),
    "plugins missing": (listed(plugins=..., loadOnlyInlinedPlugins=True), "plugins"),
    "plugins object": (listed(plugins={"type": "bridge"}), "plugins"),
    "plugins text": (listed(plugins="bridge"), "plugins"),
    "plugins empty": (listed(plugins=[]), "no plugins in list"),
    "plugin text": (listed(plugins=["bridge"]), "plugins[0]"),
    "plugin null": (listed(plugins=[{"type": "bridge"}, None]), "plugins[1]"),
    "type missing": (
        listed(plugins=[{"type": "bridge"}, {}]),
        "plugins[1]: error parsing configuration: missing 'type'",
    ),
    "type empty": (plugin(type=""), "plugins[1]: error parsing configuration: missing 'type'"),
    "type number": (plugin(type=5), 'plugins[1]: "type" must be a string'),
    "type path": (plugin(type="../../bin/sh"), "plugins[1]: invalid plugin name"),
    "type dots": (plugin(type=".."), "plugins[1]: invalid plugin name"),
    "capabilities list": (plugin(capabilities=["portMappings"]), '"capabilities" must be an object'),
    "capabilities word": (plugin(capabilities={"portMappings": "yes"}), '"portMappings" must be a boolean'),
    "ipam text": (plugin(ipam="host-local"), '"ipam" must be an object'),
    "ipam list": (plugin(ipam=[]), '"ipam" must be an object'),
    "ipam type number": (plugin(ipam={"type": 5}), '"type" must be a string'),
    "dns list": (plugin(dns=["1.1.1.1"]), '"dns" must be an object'),
    "single without type": ('{"cniVersion": "1.0.0", "name": "bad"}', 'neither "type" nor "plugins"'),
    "single with a path": ('{"cniVersion": "1.0.0", "name": "../bad", "type": "bridge"}', "network name"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_file_is_reported_and_others_are_used(host: Host, what: str) -> None:
    """One line names the file and the fault.  The networks before and after it are attached."""
    text, complaint = MALFORMED[what]
    configure(host, MYNET)
    host.write(f"{NET_D}/15-bad.conflist", text) if "\udcff" not in text else host.run(
        "sh", "-c", f"printf '\\377\\376' > {NET_D}/15-bad.conflist"
    )
    configure(host, **{"20-other.conflist": json.dumps(bridge("other", "10.23.0.0/24"))})
    container = host.container("c1", process=True)

    result = call_hook(host, "createRuntime", state_of(container))
    assert result.returncode == 0, result
    assert container.addresses("eth0") == ["10.22.0.2/16"]
    assert container.addresses("eth1") == ["10.23.0.2/24"]
    assert result.stderr.count("\n") == 1, result.stderr
    assert f"{NET_D}/15-bad.conflist" in result.stderr and complaint in result.stderr
    assert len(result.stderr) < 1000

    result = call_hook(host, "poststop", state_of(container))
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.needs("strace")
@pytest.mark.parametrize("error", ["EIO", "EMFILE", "ENOMEM"])
def test_unreadable_file_is_an_error(host: Host, error: str) -> None:
    """Otherwise the container would start without that network.  A container on other networks starts."""
    configure(host, MYNET, bridge("other", "10.23.0.0/24"))
    container = host.container("c1", process=True)
    launcher = fault("openat", f"error={error}", f"{NET_D}/11-net.conflist")

    for words in ((), ("--network", "mynet,other")):
        failed = call_hook(host, "createRuntime", state_of(container), *words, launcher=launcher)
        assert failed.returncode == 1 and f"{NET_D}/11-net.conflist: " in failed.stderr, failed
        assert failed.stderr.count("\n") == 1, failed
        assert container.links() == {"lo"}
    succeeded = call_hook(
        host, "createRuntime", state_of(container), "--network", "mynet", launcher=launcher
    )
    assert succeeded.returncode == 0, succeeded

    assert call_hook(host, "poststop", state_of(container)).returncode == 0
    host.leaves("file /run/cnihook/log/c1")


@pytest.mark.needs("strace")
@pytest.mark.parametrize(("syscall", "path"), [("getdents64", NET_D), ("openat", f"{NET_D}/mynet")])
def test_unreadable_folder_is_an_error(host: Host, syscall: str, path: str) -> None:
    """Test the folder of all networks and the folder of one network's plugins."""
    configure(host, bridge("mynet", "10.22.0.0/24"))
    container = host.container("c1", process=True)

    launcher = fault(syscall, "error=EIO", path)
    for words in ((), ("--network", "mynet")):
        failed = call_hook(host, "createRuntime", state_of(container), *words, launcher=launcher)
        assert failed.returncode == 1 and f"{path}: Input/output error" in failed.stderr, failed
        assert failed.stderr.count("\n") == 1, failed
        assert container.links() == {"lo"}
    host.leaves("file /run/cnihook/log/c1")


def test_malformed_file_alone_is_refused(host: Host) -> None:
    """The default network is used only if none is configured, not if the configuration is malformed."""
    configure(host, listed(name=5))
    container = host.container("c1", process=True)

    result = call_hook(host, "createRuntime", state_of(container))
    assert result.returncode == 1
    assert f"no usable network configuration in {NET_D}" in result.stderr
    assert container.links() == {"lo"}
    host.leaves("file /run/cnihook/log/c1")


def test_requested_malformed_network_is_refused(host: Host) -> None:
    configure(host, MYNET, listed(plugins=[]))
    container = host.container("c1", process=True)

    result = call_hook(host, "createRuntime", state_of(container), "--network", "bad")
    assert result.returncode == 1
    assert "no plugins in list" in result.stderr and "no network 'bad'" in result.stderr
    host.leaves("file /run/cnihook/log/c1")


def test_special_files_do_not_block_the_hook(host: Host) -> None:
    """Opening a FIFO waits for a writer, and /dev/zero has no end."""
    configure(host, MYNET)
    host.run("mkdir", f"{NET_D}/11-folder.conflist")
    host.run("mkfifo", f"{NET_D}/12-fifo.conflist")
    host.run("ln", "-s", "/dev/zero", f"{NET_D}/13-zero.conflist")
    host.run("ln", "-s", "nowhere", f"{NET_D}/14-dangling.conflist")
    host.run("ln", "-s", "15-loop.conflist", f"{NET_D}/15-loop.conflist")
    host.leaves(f"dir {NET_D}/*")
    container = host.container("c1", process=True)

    result = call_hook(host, "createRuntime", state_of(container))
    assert result.returncode == 0, result
    assert container.addresses("eth0") == ["10.22.0.2/16"]
    for name in ("12-fifo", "13-zero", "14-dangling", "15-loop"):
        assert name in result.stderr
    assert call_hook(host, "poststop", state_of(container)).returncode == 0


def test_content_of_a_file_decides_its_format(host: Host) -> None:
    """Users often save a list as .conf.  Files with other suffixes, as editors leave them, are ignored."""
    one = json.dumps(bridge("one", "10.31.0.0/24"))
    two = json.dumps({"cniVersion": "0.4.0", "name": "two", **bridge("two", "10.32.0.0/24")["plugins"][0]})
    other = json.dumps(bridge("other", "10.39.0.0/24"))
    configure(host, **{"10-one.conf": one, "20-two.conflist": two, "30-three.json": LOOPBACK})
    configure(
        host,
        **{name: other for name in ("10.conf~", "11.conf.bak", "12.CONF", "13.txt", "conf", ".conf.swp")},
    )
    container = host.container("c1", process=True)

    assert call_hook(host, "createRuntime", state_of(container)).stderr == ""
    assert host.listdir(RESULTS) == ["loopback-c1-lo", "one-c1-eth0", "two-c1-eth1"]
    assert call_hook(host, "poststop", state_of(container)).returncode == 0


def test_first_of_two_networks_with_one_name_is_used(host: Host) -> None:
    configure(host, MYNET, MYNET.replace("10.22.", "10.33."))
    container = host.container("c1", process=True)

    result = call_hook(host, "createRuntime", state_of(container))
    assert result.returncode == 0
    assert (
        f"{NET_D}/11-net.conflist: network mynet is already defined in {NET_D}/10-net.conflist"
        in result.stderr
    )
    assert container.addresses("eth0") == ["10.22.0.2/16"]
    assert call_hook(host, "poststop", state_of(container)).returncode == 0


def test_plugins_in_folder_of_network_are_part_of_it(host: Host) -> None:
    """A package adds a plugin to a network as NAME/*.conf.  A malformed file there is reported too."""
    configure(host, MYNET, bridge("other", "10.23.0.0/24"))
    host.write(f"{NET_D}/other/10-lo.conf", '{"type": "loopback"}')
    host.leaves(f"dir {NET_D}/other")
    first, second = host.container("c1", process=True), host.container("c2", process=True)

    assert call_hook(host, "createRuntime", state_of(first)).stderr == ""
    host.write(f"{NET_D}/other/20-bad.conf", '{"type": 5}')
    result = call_hook(host, "createRuntime", state_of(second))
    assert result.returncode == 0
    assert f"{NET_D}/other/20-bad.conf" in result.stderr and '"type"' in result.stderr
    assert second.links() == {"lo", "eth0"}
    for container in (first, second):
        assert call_hook(host, "poststop", state_of(container)).returncode == 0


# Faults that only the plugin can detect: the hook fails, and everything is as before.


def ipam(**keys: Any) -> dict[str, Any]:
    return {"type": "bridge", "bridge": "br1", "ipam": {"type": "host-local", **keys}}


REFUSED_BY_PLUGIN: dict[str, tuple[Any, str]] = {
    "cniVersion word": (listed(cniVersion="new"), 'config is "new"'),
    "cniVersion four parts": (listed(cniVersion="1.0.0.0"), 'config is "1.0.0.0"'),
    "cniVersion empty part": (listed(cniVersion="1..0"), 'config is "1..0"'),
    "cniVersion of tomorrow": (listed(cniVersion="2.0.0"), "2.0.0"),
    "no such plugin": (listed(plugins=[{"type": "nosuch"}]), 'failed to find plugin "nosuch"'),
    "no such ipam": (
        listed(plugins=[{"type": "bridge", "ipam": {"type": "nosuch"}}]),
        'failed to find plugin "nosuch"',
    ),
    "mtu": (
        listed(plugins=[{"type": "bridge", "mtu": "big"}]),
        'plugins[0] (bridge): "mtu" must be an integer',
    ),
    "isGateway": (listed(plugins=[{"type": "bridge", "isGateway": "yes"}]), '"isGateway" must be a boolean'),
    "vlan": (listed(plugins=[{"type": "bridge", "vlan": 5000}]), "VLAN ID 5000"),
    "bridge": (
        listed(plugins=[{"type": "bridge", "bridge": "a name that is too long"}]),
        "a name that is too long",
    ),
    "no subnet": (listed(plugins=[ipam()]), "range"),
    "subnet": (listed(plugins=[ipam(subnet="10.1.0.0")]), "10.1.0.0"),
    "host bits": (listed(plugins=[ipam(subnet="10.1.0.1/16")]), '"subnet" is wrong: '),
    "range": (
        listed(plugins=[ipam(ranges=[[{"subnet": "10.1.0.0/16", "rangeStart": "10.2.0.1"}]])]),
        "10.2.0.1",
    ),
    "ranges": (listed(plugins=[ipam(ranges={"subnet": "10.1.0.0/16"})]), '"ranges'),
    "route": (listed(plugins=[ipam(subnet="10.1.0.0/16", routes=[{"dst": "everywhere"}])]), "everywhere"),
}


@pytest.mark.parametrize("what", REFUSED_BY_PLUGIN)
def test_configuration_that_a_plugin_rejects_leaves_nothing(host: Host, what: str) -> None:
    """The network before it is rolled back."""
    text, complaint = REFUSED_BY_PLUGIN[what]
    configure(host, MYNET, text)
    container = host.container("c1", process=True)

    result = call_hook(host, "createRuntime", state_of(container))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert f"{NET_D}/11-net.conflist" in result.stderr or 'name="bad"' in result.stderr
    assert complaint in result.stderr
    assert leases(host) == leases(host, "bad") == host.listdir(RESULTS) == []
    assert container.links() == {"lo"}
    host.leaves("file /run/cnihook/log/c1")


BAD_ANSWERS = {
    "nothing": "true",
    "no JSON": "echo all is well",
    "a list": "echo []",
    "truncated": """printf '{"cniVersion": "1.0.0", "ips": ['""",
    "an unknown version": """echo '{"cniVersion": "9.9.9"}'""",
    "an invalid address": """echo '{"cniVersion": "1.0.0", "ips": [{"address": "here"}]}'""",
    "a hundred thousand lines": "yes | head -100000",
    "a silent failure": "exit 3",
    "a failure with text on stderr": "echo line one >&2; echo line two >&2; exit 3",
    "a failure without JSON": "echo oh no; exit 1",
    "a failure without a message": "echo '{}'; exit 1",
    "a failure of many lines": r"""printf '{"msg": "one\\ntwo", "details": "three\\nfour"}'; exit 1""",
    "a signal": "kill -SEGV $$",
    "not a program": None,
}


@pytest.mark.parametrize("what", BAD_ANSWERS)
def test_plugin_with_invalid_answer_is_named_in_one_line(host: Host, what: str) -> None:
    script = BAD_ANSWERS[what]
    text = (
        "this is not a program"
        if script is None
        else f"#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit\n{script}\n"
    )
    host.write("/run/.host/plugins/odd", text, 0o755)
    configure(host, MYNET, listed(plugins=[{"type": "odd"}]))
    container = host.container("c1", process=True)

    result = call_hook(host, "createRuntime", state_of(container), "--cni-path", "/run/.host/plugins")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert len(result.stderr) < 2000
    assert 'plugin type="odd" name="bad" failed (add): ' in result.stderr
    assert leases(host) == []
    host.leaves(
        "file /run/cnihook/log/c1", *(["file /var/lib/cni/results/bad-c1-eth1"] if script is None else [])
    )
