# SPDX-License-Identifier: Apache-2.0
"""The hook alone: any state on stdin, and any request of the container."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.host.host import Container, Host
from tests.support.runtimes.oci import MYNET, RESULTS, bridge, call_hook, configure, kill, leases

EVENTS = ["createRuntime", "poststop"]


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    """Create what exists when a runtime calls the hook: a process in its own network namespace."""
    configure(host, MYNET, bridge("other", "10.23.0.0/24"))
    yield host.container("c1", process=True)


def state_of(container: Container, **changes: Any) -> dict[str, Any]:
    """Return the state as runc writes it, with `changes`; a key with the value None is left out."""
    usual = {
        "ociVersion": "1.0.2-dev",
        "id": container.name,
        "status": "creating",
        "pid": container.pid,
        "bundle": "/nowhere",
    }
    return {key: value for key, value in (usual | changes).items() if value is not None}


def refused(host: Host, event: str, state: Any, *arguments: str) -> str:
    """Return the one line on stderr of a call that fails; nothing may be attached then."""
    result = call_hook(host, event, state, *arguments)

    assert result.returncode == 1, result
    assert result.stderr.count("\n") == 1, result.stderr
    assert host.listdir(RESULTS) == []
    host.leaves("file /run/cnihook/log/c1")
    return result.stderr


# What is on stdin

NO_STATE = {
    "": "stdin: it is empty",
    " \n": "stdin: it is empty",
    '{"id": "c1", "pid": 12': "stdin: it is not JSON",
    '{"id": "c1"} {}': "stdin: it is not JSON",
    "\ufeff{}": "stdin: it is not JSON",
    "\udcff\udcfe": "stdin: it is not JSON",
    "[]": "stdin: it must be an object, not a list",
    "null": "stdin: it must be an object, not null",
    "42": "stdin: it must be an object, not an integer",
    '"c1"': "stdin: it must be an object, not a string",
    "[" * 200_000: "stdin: ",
    "{}": '"id"',
    '{"id": null}': '"id"',
    '{"id": 7}': '"id" must be a string, not an integer',
    '{"id": ["c1"]}': '"id" must be a string, not a list',
    '{"id": "c1", "pid": "12"}': '"pid" must be an integer, not a string',
    '{"id": "c1", "pid": true}': '"pid" must be an integer, not a boolean',
    '{"id": "c1", "pid": 1.5}': '"pid" must be an integer, not a number',
    '{"id": "c1", "pid": -1}': '"pid" must be between',
    '{"id": "c1", "pid": 99999999999999999999}': '"pid" must be between',
    '{"id": "c1", "bundle": []}': '"bundle" must be a string, not a list',
    '{"id": "c1", "annotations": []}': '"annotations" must be an object, not a list',
}


@pytest.mark.parametrize("text", NO_STATE, ids=[text[:40] or "empty" for text in NO_STATE])
@pytest.mark.parametrize("event", EVENTS)
def test_malformed_state_is_refused_in_one_line(host: Host, event: str, text: str) -> None:
    assert NO_STATE[text] in refused(host, event, text)


def test_state_without_end_is_refused(host: Host) -> None:
    """Otherwise a state without end would use up the host's memory."""
    assert "longer than" in refused(host, "createRuntime", " " * (17 << 20))


NO_TEXT = ["a\0b", "\ud800"]
BAD_IDS = [
    "../../etc/x",
    "a/b",
    "a\nb",
    *NO_TEXT,
    "",
    ".",
    "..",
    "-x",
    "a b",
    "ä",
    "$(id)",
    "x;y",
    "a" * 300,
]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("name", BAD_IDS, ids=ascii)
def test_id_that_cannot_be_a_file_name_is_refused(host: Host, event: str, name: str) -> None:
    """The container ID becomes part of paths, nftables comments and the environment of plugins."""
    message = refused(host, event, {"id": name, "pid": 1, "bundle": "/"})

    if name in NO_TEXT:
        assert '"id" is not text: ' in message
    else:
        assert '"id": ' in message and "container ID" in message


def test_longest_id_that_fits_a_file_name_works(host: Host, container: Container) -> None:
    name = "a" * (255 - len("mynet--eth999"))

    assert (
        call_hook(host, "createRuntime", state_of(container, id=name), "--network", "mynet").returncode == 0
    )
    assert host.listdir(RESULTS) == [f"mynet-{name}-eth0"]
    container.destroy()
    assert call_hook(host, "poststop", {"id": name}).returncode == 0


def test_id_too_long_for_a_record_is_refused(host: Host, container: Container) -> None:
    name = "a" * 250

    assert "too long" in refused(host, "createRuntime", state_of(container, id=name))
    host.leaves(f"file /run/cnihook/log/{name}")


def test_unusual_but_valid_states_are_accepted(host: Host) -> None:
    """crun, Podman, a restore and future versions add or omit such keys."""
    oddities: list[dict[str, Any]] = [
        {"ociVersion": "1.0", "status": "created", "root": "/somewhere"},
        {"ociVersion": None, "status": "stopped", "annotations": {}},
        {"status": "starting", "annotations": {"a": "b"}, "unknown": {"deep": [1, 2]}},
        {"status": None, "bundle": None},
        {"bundle": "relative/../path"},
        {"bundle": "/dev/null"},
        {"annotations": {"a": 7, "b": None}},
    ]
    configure(host, MYNET)
    for number, odd in enumerate(oddities):
        container = host.container(f"c{number}", process=True)
        state = {**state_of(container), **odd}
        assert call_hook(host, "createRuntime", state).returncode == 0, odd
        assert container.addresses("eth0")[0].startswith("10.22.0."), odd
        container.destroy()
        assert call_hook(host, "poststop", state | {"pid": 0, "status": "stopped"}).returncode == 0, odd
        assert leases(host) == host.listdir(RESULTS) == [], odd


def test_null_annotations_count_as_absent(host: Host, container: Container) -> None:
    state = state_of(container) | {"annotations": None}

    assert call_hook(host, "createRuntime", state).returncode == 0
    assert call_hook(host, "poststop", state).returncode == 0


# Which process


@pytest.mark.parametrize("pid", [0, None])
def test_createruntime_without_a_process_is_refused(
    host: Host, container: Container, pid: int | None
) -> None:
    """The likely reason is a hook of another stage, where runtimes pass no PID."""
    message = refused(host, "createRuntime", state_of(container, pid=pid))

    assert '"pid" is missing or 0' in message and "createRuntime" in message


def test_ended_process_is_refused(host: Host, container: Container) -> None:
    container.destroy()

    message = refused(host, "createRuntime", state_of(container))
    assert f"no network namespace of process {container.pid}: No such file or directory" in message


def test_process_in_host_namespace_is_refused(host: Host, container: Container) -> None:
    """config.json may be missing or not show this, so the hook compares the namespaces themselves."""
    pid = int(host.run("sh", "-c", "sleep 2147483647 > /dev/null 2>&1 & echo $!").stdout)
    message = refused(host, "createRuntime", state_of(container, pid=pid))
    kill(host, pid)

    assert "container c1 shares the host's network namespace" in message
    assert '{"type": "network"} to linux.namespaces' in message


def test_poststop_ignores_the_pid(host: Host, container: Container) -> None:
    """The PID may belong to another process in another container then."""
    call_hook(host, "createRuntime", state_of(container))

    assert call_hook(host, "poststop", state_of(container, id="c2", status="stopped")).returncode == 0
    assert container.addresses("eth0") == ["10.22.0.2/16"]
    container.destroy()
    assert call_hook(host, "poststop", {"id": "c1", "pid": 1}).returncode == 0
    assert leases(host) == []


def test_poststop_releases_nothing_of_a_live_container(host: Host, container: Container) -> None:
    """A stopped container has ended, so a live one with its ID is another, unless the PID is the same."""
    call_hook(host, "createRuntime", state_of(container))
    for pid in (None, 0, 1):
        result = call_hook(host, "poststop", state_of(container, pid=pid, status="stopped"))
        assert result.returncode == 0
        assert (
            f"another container c1 lives, process {container.pid}, and is on network mynet" in result.stderr
        )
        assert container.addresses("eth0") == ["10.22.0.2/16"]

    result = call_hook(host, "poststop", state_of(container, status="stopped"))
    assert (result.returncode, result.stderr) == (0, "")
    assert container.links() == {"lo"}


def test_poststop_of_an_unknown_container_succeeds(host: Host) -> None:
    """The hook may have been added after the container's start, or createRuntime may have failed."""
    result = call_hook(host, "poststop", {"id": "c1", "bundle": "/"})

    assert (result.returncode, result.stderr) == (0, "")


# Which networks

CHOICES = {
    "": {"lo"},
    " , ,": {"lo"},
    "other": {"lo", "eth0"},
    "other:net7": {"lo", "net7"},
    " mynet:a , other:b ": {"lo", "a", "b"},
    ",mynet,,other,": {"lo", "eth0", "eth1"},
    "mynet:eth1,other": {"lo", "eth1", "eth0"},
}


@pytest.mark.parametrize("text", CHOICES)
def test_annotation_chooses_networks(host: Host, container: Container, text: str) -> None:
    state = state_of(container, annotations={"cnihook.networks": text})

    assert call_hook(host, "createRuntime", state).returncode == 0
    assert container.links() == CHOICES[text]
    assert call_hook(host, "poststop", state).returncode == 0


WRONG_CHOICES = {
    "nosuch": "no network 'nosuch' in /etc/cni/net.d; there are: ",
    "mynet,nosuch": "no network 'nosuch'",
    "mynet:": "interface name is empty",
    ":eth0": "missing network name",
    "mynet:sixteen-bytes-xx": "'sixteen-bytes-xx' is too long",
    "mynet:a/b": "'a/b' contains /",
    "mynet:a:b": "'a:b' contains",
    "mynet:..": "'..' is . or ..",
    "mynet:a b": "whitespace",
    "mynet other": "invalid characters found in network name",
    "../mynet": "invalid characters found in network name",
    "mynet\nother": "invalid characters found in network name",
    "mynet,mynet": "network mynet is asked for twice",
    "mynet,mynet:eth5": "network mynet is asked for twice",
    "mynet:a,other:a": "interface name a is asked for twice",
    "mynet:lo": "lo",
    "x" * 10_000: "is longer than 255 characters",
    "x" * 100_000: "65536 is the most",
    "cnihook": "no network 'cnihook' in /etc/cni/net.d; there are: ",
    '["mynet"]': "invalid characters found in network name",
    "\x00": "invalid characters found in network name",
}


@pytest.mark.parametrize("text", WRONG_CHOICES, ids=lambda text: f"{ascii(text[:30])}-{len(text)}")
def test_wrong_choice_is_refused_before_anything_changes(
    host: Host, container: Container, text: str
) -> None:
    message = refused(host, "createRuntime", state_of(container, annotations={"cnihook.networks": text}))

    assert WRONG_CHOICES[text] in message
    assert len(message) < 500
    assert host.links() == {"lo"}


@pytest.mark.parametrize("value", [7, None, ["mynet"], {"a": "b"}], ids=str)
def test_annotation_that_is_not_a_string_is_refused(host: Host, container: Container, value: Any) -> None:
    refused(host, "createRuntime", state_of(container) | {"annotations": {"cnihook.networks": value}})


def test_attached_container_is_not_attached_again(host: Host, container: Container) -> None:
    """The container keeps its attachment."""
    call_hook(host, "createRuntime", state_of(container), "--network", "mynet")
    result = call_hook(host, "createRuntime", state_of(container))

    assert result.returncode == 1
    assert (
        "container c1 is on network mynet already, as eth0; `cnihook detach c1 --network mynet`"
        in result.stderr
    )
    assert leases(host) == ["10.22.0.2"]
    assert container.addresses("eth0") == ["10.22.0.2/16"]
    host.leaves("file /run/cnihook/log/c1")
    assert call_hook(host, "poststop", state_of(container)).returncode == 0


# The hook's arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nosuch",),
        ("mynet",),
        ("--network",),
        ("--conf-dir",),
        ("--conf-dir", ""),
        ("-n", "mynet"),
        ("--", "x"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("event", EVENTS)
def test_wrong_arguments_are_a_usage_error(host: Host, event: str, arguments: tuple[str, ...]) -> None:
    result = call_hook(host, event, {"id": "c1"}, *arguments)

    assert result.returncode == 2
    assert result.stderr.count("\n") == 1


def test_conf_dir_argument_names_another_folder(host: Host, container: Container) -> None:
    host.write("/run/.host/nets/1.conflist", json.dumps(bridge("mine", "10.99.0.0/24")))

    assert (
        call_hook(host, "createRuntime", state_of(container), "--conf-dir=/run/.host/nets").returncode == 0
    )
    assert container.addresses("eth0") == ["10.99.0.2/24"]
    assert call_hook(host, "poststop", state_of(container)).returncode == 0


@pytest.mark.parametrize("value", ["", ":", "/nowhere:/nowhere"])
def test_empty_variables_count_as_absent(host: Host, container: Container, value: str) -> None:
    """Many unit files set variables to nothing."""
    names = ("CNI_PATH", "PATH", "XDG_RUNTIME_DIR", "LANG", "HOME")
    env = ("/usr/bin/env", "NETCONFPATH=", *(f"{name}={value}" for name in names))

    assert call_hook(host, "createRuntime", state_of(container), launcher=env).returncode == 0
    assert container.links() == {"lo", "eth0", "eth1"}
    assert call_hook(host, "poststop", state_of(container), launcher=env).returncode == 0
