# SPDX-License-Identifier: Apache-2.0
"""The hook by itself: whatever a runtime may tell it on stdin, and whatever the container may ask for."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.host import Container, Host
from tests.support.oci import MYNET, RESULTS, bridge, call_hook, configure, kill, leases

EVENTS = ["createRuntime", "poststop"]


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    """What a runtime has made when it calls the hook: a process in a network namespace of its own."""
    configure(host, MYNET, bridge("other", "10.23.0.0/24"))
    yield host.container("c1", process=True)


def state_of(container: Container, **changes: Any) -> dict[str, Any]:
    """As runc writes it, but for what is given; a key that is None is left out."""
    usual = {
        "ociVersion": "1.0.2-dev",
        "id": container.name,
        "status": "creating",
        "pid": container.pid,
        "bundle": "/nowhere",
    }
    return {key: value for key, value in (usual | changes).items() if value is not None}


def refused(host: Host, event: str, state: Any, *arguments: str) -> str:
    """The one line that says why; nothing may be attached by then."""
    done = call_hook(host, event, state, *arguments)

    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1, done.stderr
    assert host.listdir(RESULTS) == []
    host.leaves("file /run/cnihook/log/c1")
    return done.stderr


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
def test_what_is_no_state_is_refused_in_one_line(host: Host, event: str, text: str) -> None:
    assert NO_STATE[text] in refused(host, event, text)


def test_state_without_end_is_refused(host: Host) -> None:
    """Memory is the host's, and a hook may be given anything."""
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
def test_id_that_could_not_be_a_file_name_is_refused(host: Host, event: str, name: str) -> None:
    """It becomes part of paths, of nftables' comments and of plugins' environments."""
    said = refused(host, event, {"id": name, "pid": 1, "bundle": "/"})

    if name in NO_TEXT:
        assert '"id" is no text: ' in said
    else:
        assert '"id": ' in said and "container ID" in said


def test_longest_id_that_makes_a_file_name_works(host: Host, container: Container) -> None:
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


def test_odd_but_legal_states_are_served(host: Host) -> None:
    """What crun, Podman, a restore and versions to come put there, or leave out."""
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


def test_null_annotations_are_none(host: Host, container: Container) -> None:
    state = state_of(container) | {"annotations": None}

    assert call_hook(host, "createRuntime", state).returncode == 0
    assert call_hook(host, "poststop", state).returncode == 0


# Which process


@pytest.mark.parametrize("pid", [0, None])
def test_createruntime_without_a_process_is_refused(
    host: Host, container: Container, pid: int | None
) -> None:
    """Hooks of other stages, where runtimes give none, are the likely reason."""
    said = refused(host, "createRuntime", state_of(container, pid=pid))

    assert '"pid" is missing or 0' in said and "createRuntime" in said


def test_process_that_is_gone_is_refused(host: Host, container: Container) -> None:
    container.destroy()

    said = refused(host, "createRuntime", state_of(container))
    assert f"no network namespace of process {container.pid}: No such file or directory" in said


def test_process_in_the_namespace_of_the_host_is_refused(host: Host, container: Container) -> None:
    """config.json may not be found, or may not say it; the namespace itself does."""
    pid = int(host.run("sh", "-c", "sleep 2147483647 > /dev/null 2>&1 & echo $!").stdout)
    said = refused(host, "createRuntime", state_of(container, pid=pid))
    kill(host, pid)

    assert "container c1 shares the host's network namespace" in said
    assert '{"type": "network"} to linux.namespaces' in said


def test_poststop_believes_no_pid(host: Host, container: Container) -> None:
    """By then it may be that of another process, in another container."""
    call_hook(host, "createRuntime", state_of(container))

    assert call_hook(host, "poststop", state_of(container, id="c2", status="stopped")).returncode == 0
    assert container.addresses("eth0") == ["10.22.0.2/16"]
    container.destroy()
    assert call_hook(host, "poststop", {"id": "c1", "pid": 1}).returncode == 0
    assert leases(host) == []


def test_poststop_takes_nothing_from_a_container_that_lives(host: Host, container: Container) -> None:
    """It has ended, so what is on record under its ID is another's; unless that is the process it names."""
    call_hook(host, "createRuntime", state_of(container))
    for pid in (None, 0, 1):
        done = call_hook(host, "poststop", state_of(container, pid=pid, status="stopped"))
        assert done.returncode == 0
        assert f"another container c1 lives, process {container.pid}, and is on network mynet" in done.stderr
        assert container.addresses("eth0") == ["10.22.0.2/16"]

    done = call_hook(host, "poststop", state_of(container, status="stopped"))
    assert (done.returncode, done.stderr) == (0, "")
    assert container.links() == {"lo"}


def test_poststop_of_a_container_that_nobody_knows_succeeds(host: Host) -> None:
    """The hook may have been added after its start, or have failed."""
    done = call_hook(host, "poststop", {"id": "c1", "bundle": "/"})

    assert (done.returncode, done.stderr) == (0, "")


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
def test_wrong_choice_is_refused_before_anything_is_done(
    host: Host, container: Container, text: str
) -> None:
    said = refused(host, "createRuntime", state_of(container, annotations={"cnihook.networks": text}))

    assert WRONG_CHOICES[text] in said
    assert len(said) < 500
    assert host.links() == {"lo"}


@pytest.mark.parametrize("value", [7, None, ["mynet"], {"a": "b"}], ids=str)
def test_annotation_that_is_no_text_is_refused(host: Host, container: Container, value: Any) -> None:
    refused(host, "createRuntime", state_of(container) | {"annotations": {"cnihook.networks": value}})


def test_container_that_is_on_a_network_is_not_put_on_it_again(host: Host, container: Container) -> None:
    """And keeps what it has."""
    call_hook(host, "createRuntime", state_of(container), "--network", "mynet")
    done = call_hook(host, "createRuntime", state_of(container))

    assert done.returncode == 1
    assert (
        "container c1 is on network mynet already, as eth0; `cnihook detach c1 --network mynet`"
        in done.stderr
    )
    assert leases(host) == ["10.22.0.2"]
    assert container.addresses("eth0") == ["10.22.0.2/16"]
    host.leaves("file /run/cnihook/log/c1")
    assert call_hook(host, "poststop", state_of(container)).returncode == 0


# The words of the command


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
    done = call_hook(host, event, {"id": "c1"}, *arguments)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_arguments_name_folders_of_their_own(host: Host, container: Container) -> None:
    host.write("/run/.host/nets/1.conflist", json.dumps(bridge("mine", "10.99.0.0/24")))

    assert (
        call_hook(host, "createRuntime", state_of(container), "--conf-dir=/run/.host/nets").returncode == 0
    )
    assert container.addresses("eth0") == ["10.99.0.2/24"]
    assert call_hook(host, "poststop", state_of(container)).returncode == 0


@pytest.mark.parametrize("value", ["", ":", "/nowhere:/nowhere"])
def test_variables_that_say_nothing_change_nothing(host: Host, container: Container, value: str) -> None:
    """An empty variable is as good as none: many a unit file sets all that it knows."""
    names = ("CNI_PATH", "PATH", "XDG_RUNTIME_DIR", "LANG", "HOME")
    env = ("/usr/bin/env", "NETCONFPATH=", *(f"{name}={value}" for name in names))

    assert call_hook(host, "createRuntime", state_of(container), launcher=env).returncode == 0
    assert container.links() == {"lo", "eth0", "eth1"}
    assert call_hook(host, "poststop", state_of(container), launcher=env).returncode == 0
