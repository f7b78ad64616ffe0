# SPDX-License-Identifier: Apache-2.0
"""The names of containers that no engine gives: of namespaces, of pods, and beginnings of IDs."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.commands.listings import show, shown, shown_json
from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, MYNET, RESULTS, configure

POD = "0ec02c95e0d70f6d" * 4
TWIN = "0ec02c95e0d7aaaa" * 4
POD_ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-7"


@contextmanager
def attached(host: Host) -> Iterator[None]:
    """Attach by the name of a namespace; as a pod; and under IDs that users chose."""
    configure(host, MYNET)
    host.leaves("file /run/cnihook/log/*", "dir /etc/docker", "file /etc/docker/*", "* /var/lib/docker*")
    for container_id, args in (("", ""), (POD, POD_ARGS), (TWIN, ""), ("db-2", "")):
        container = host.container({"": "box"}.get(container_id, f"ns-{container_id[:14]}"))
        words = ("--container-id", container_id) if container_id else ()
        host.run("env", f"CNI_ARGS={args}", CNIHOOK, "add", "mynet", container.name, *words)
    yield
    for container_id in shown(host, "ps", "--quiet").split():
        host.run(CNIHOOK, "detach", container_id)
    assert host.listdir(RESULTS) == []


def refused(host: Host, *words: str) -> str:
    process = show(host, *words)
    assert process.returncode in (1, 2) and process.stdout == "", process
    return process.stderr


def test_containers_are_found_by_the_names_that_ps_and_graph_show(host: Host) -> None:
    with attached(host):
        listed = {one["container"]: one["name"] for one in shown_json(host, "ps")}
        (cnitool,) = set(listed) - {POD, TWIN, "db-2"}
        assert listed == {cnitool: "box", POD: "shop/web-7", TWIN: None, "db-2": None}

        tree = shown(host, "graph")
        for line in shown(host, "ps").splitlines()[1:]:
            text = line.split()[0]
            assert f" {text} " in tree
            assert shown(host, "check", text) == f"well {text} mynet eth0\n"
        expected = {"box": cnitool, cnitool[:12]: cnitool, "shop/web-7": POD, "web-7": POD, "db": "db-2"}
        for text, container_id in (expected | {f"{POD[:13]}…": POD, TWIN[:13]: TWIN}).items():
            assert json.loads(shown(host, "inspect", text, "--json"))["container"] == container_id
        keep = ("--keep", "web-7", "--keep", "box/eth0", "--keep", "shop/web-7/eth9", "--dry-run")
        assert shown(host, "gc", "mynet", *keep).count("would release") == 2
        host.run(CNIHOOK, "detach", "box")
        assert "box" not in shown(host, "ps")


def test_text_that_names_several_containers_is_refused(host: Host) -> None:
    """The beginning of an ID that a user chose does not detach: the container of this ID may be gone."""
    with attached(host):
        both = f": 0ec names 2 containers: shop/web-7 {POD}, {TWIN}; give the whole ID of one"
        for command in ("check", "inspect", "repair", "detach", "stats"):
            assert both in refused(host, command, "0ec")

        assert refused(host, "detach", "db") == (
            "cnihook: detach db: no network is on record for it; "
            f"containers on record: {TWIN}, box, db-2, shop/web-7\n"
        )
        host.run(CNIHOOK, "detach", "db…")
        assert "`cnihook check mynet NETNS`" in refused(host, "check", "mynet")


def test_name_that_is_an_id_too_is_not_shown(host: Host) -> None:
    """The text that ps shows of a container never means another container."""
    configure(host, MYNET)
    host.container("box")
    host.container("other")
    host.run(CNIHOOK, "add", "mynet", "box")
    host.run(CNIHOOK, "add", "mynet", "other", "--container-id", "box")

    names = {one["container"]: one["name"] for one in shown_json(host, "ps")}
    texts = [line.split()[0] for line in shown(host, "ps").splitlines()[1:]]
    assert set(names.values()) == {"box", None} and sorted(texts) == sorted(names)
    for text in texts:
        host.run(CNIHOOK, "detach", text)
    assert host.listdir(RESULTS) == []


def test_malformed_files_of_engines_hide_only_names(host: Host) -> None:
    listing = ("ps", "--format", "{container} {name}")
    paths = ("/etc/docker/daemon.json", f"/var/lib/docker/containers/{TWIN}/config.v2.json")
    with attached(host):
        before = shown(host, *listing)
        for content in ("", "[]", "{", '{"data-root": 7}', '{"Name": ["x"]}', "[" * 100_000):
            for path in paths:
                host.write(path, content)
            assert shown(host, *listing) == before
        for path in paths:
            (host.root / path.lstrip("/")).unlink()
            os.mkfifo(host.root / path.lstrip("/"))  # an open would wait
        assert shown(host, *listing) == before
