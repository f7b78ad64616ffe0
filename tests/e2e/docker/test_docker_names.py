# SPDX-License-Identifier: Apache-2.0
"""The commands with the names and IDs of docker's and containerd's containers, instead of full IDs."""

import json
from collections.abc import Iterator

import pytest

from tests.support.commands.listings import show, shown, shown_json
from tests.support.commands.live import ATTACH, by_pid, change_all, configure_live
from tests.support.host.host import Host
from tests.support.runtimes.docker import IMAGE, Docker
from tests.support.runtimes.oci import CNIHOOK, FOR_EVER, RESULTS

CONF = "/etc/docker/daemon.json"


@pytest.fixture
def docker(docker: Docker, host: Host) -> Iterator[Docker]:
    """Write the daemon's folders to the file in which docker's users configure them."""
    host.write(
        CONF, json.dumps({"data-root": f"{docker.folder}/data", "exec-root": f"{docker.folder}/exec"})
    )
    host.leaves("dir /etc/docker", f"file {CONF}", "file /run/cnihook/log/*")
    yield docker
    (host.root / CONF.lstrip("/")).unlink()


def start(docker: Docker, name: str) -> str:
    return docker("run", "-d", "--network=none", "--name", name, IMAGE, *FOR_EVER).stdout.strip()


def addresses(host: Host) -> list[tuple[str, list[str]]]:
    return [(one["container"], one["addresses"]) for one in shown_json(host, "ps")]


def test_every_command_takes_the_name_and_the_short_id(docker: Docker, host: Host) -> None:
    """No command needs --root: `attach` finds the folder in which docker's runc keeps its state."""
    container_id = start(docker, "web")
    short = container_id[:12]

    host.run(CNIHOOK, "attach", "web")
    assert addresses(host) == [(container_id, ["10.22.0.2/16"])]
    (row,) = shown(host, "ps").splitlines()[1:]
    assert row.split()[0] == "web" and "web  eth0  10.22.0.2" in shown(host, "graph")
    (details,) = json.loads(shown(host, "graph", "--format", "json"))["containers"]
    assert (details["container"], details["name"]) == (container_id, "web")
    for text in ("web", short, f"{container_id[:30]}…", f"{container_id[:20]}~", container_id[:1], "w…b"):
        assert (
            shown(host, "check", text)
            == shown(host, "check", "--container", text)
            == "well web mynet eth0\n"
        )
        assert json.loads(shown(host, "inspect", text, "--json"))["container"] == container_id
        assert shown(host, "inspect", text).splitlines()[0] == f"web {short}  mynet  eth0"
        assert "attached to mynet as eth0" in shown(host, "logs", text)
        assert shown(host, "stats", text, "--once").splitlines()[1].split()[0] == "web"
        assert shown(host, "repair", text) == ""
        assert shown(host, "gc", "mynet", "--keep", text, "--dry-run") == ""
    host.run(CNIHOOK, "detach", short)
    assert host.listdir(RESULTS) == []
    host.run(CNIHOOK, "attach", short)
    host.run(CNIHOOK, "detach", "web")
    assert host.listdir(RESULTS) == []
    docker("rm", "--force", "web")


def test_container_of_docker_run_has_the_name_that_the_user_gave(docker: Docker, host: Host) -> None:
    """The networks belong to its pause container; its own ID leads to them, too."""
    container_id = docker.run("-d", "--name", "web", "--network", "mynet", IMAGE, *FOR_EVER).stdout.strip()
    ((pause, _),) = addresses(host)

    assert pause != container_id
    assert shown(host, "ps").splitlines()[1].split()[0] == "web"
    for text in ("web", container_id, container_id[:12], pause[:12]):
        assert json.loads(shown(host, "inspect", text, "--json"))["container"] == pause
    shown(host, "update", "web", "--dns", "192.0.2.53", "--alias-add", "db")
    assert "nameserver 192.0.2.53\n" in docker("exec", "web", "cat", "/etc/resolv.conf").stdout
    assert " db\t" in docker("exec", "web", "cat", "/etc/hosts").stdout
    docker("rm", "--force", "web")
    docker.wait_until_left()


def test_container_in_the_network_of_another_is_accepted_as_that_one(docker: Docker, host: Host) -> None:
    """The runtime gives it no namespace of its own, so its ID is not on record."""
    container_id = start(docker, "web")
    host.run(CNIHOOK, "attach", "web")
    words = ("run", "-d", "--network=container:web", "--name", "job", IMAGE, *FOR_EVER)
    joined = docker(*words).stdout.strip()
    start(docker, "alone")

    for text in ("job", joined, joined[:12]):
        assert json.loads(shown(host, "inspect", text, "--json"))["container"] == container_id
        assert shown(host, "check", text) == "well web mynet eth0\n"
        assert shown(host, "ps", "--quiet", text) == f"{container_id}\n"
    assert "no network of container alone is on record" in show(host, "ps", "alone").stderr
    docker("rm", "--force", "job", "alone")
    assert "no network of container job is on record" in show(host, "ps", "job").stderr
    host.run(CNIHOOK, "detach", "web")
    docker("rm", "--force", "web")


@pytest.mark.needs("ctr", "crun")
def test_containers_of_containerd_are_found_by_the_names_of_nerdctl_and_pods(
    docker: Docker, host: Host
) -> None:
    """Both pass names as annotations.  If two containers have one name, the command lists them."""
    address = str(docker.folder / "exec/containerd/containerd.sock")

    def run(namespace: str, container_id: str, *options: str, **annotations: str) -> None:
        words = [f"--annotation={key.replace('__', '/')}={value}" for key, value in annotations.items()]
        words += [
            "--cgroup",
            "",
            "--rootfs",
            str(docker.folder / "rootfs"),
            container_id,
            "/bin/sleep",
            "600",
        ]
        host.run("ctr", "-a", address, "-n", namespace, "run", "-d", *options, *words)

    number = "0ec02c95e0d70f6d" * 4
    run("default", number, nerdctl__name="db")
    run("other", "c2", nerdctl__name="db")
    cri = {
        f"io.kubernetes.cri.sandbox-{key}": text
        for key, text in {"id": "pod1", "namespace": "shop", "name": "web-7"}.items()
    }
    run("k8s.io", "pod1", "--runc-binary", "crun", **cri)
    run("k8s.io", "nginx", "--runc-binary", "crun", **cri)

    for text, container_id, name in (
        ("0ec0", number, "db"),
        ("c2", "c2", "db"),
        ("web-7", "pod1", "shop/web-7"),
    ):
        host.run(CNIHOOK, "attach", text)
        (row,) = shown_json(host, "ps")
        assert (row["container"], row["name"]) == (container_id, name)
        assert shown(host, "ps").splitlines()[1].split()[0] == name
        if name == "shop/web-7":  # a container of the pod, which is in its namespace
            assert shown(host, "check", "nginx") == "well shop/web-7 mynet eth0\n"
        host.run(CNIHOOK, "detach", name)
    assert host.listdir(RESULTS) == []

    refused = host.run(CNIHOOK, "attach", "db", check=False)
    assert refused.returncode == 1 and refused.stderr == (
        f"cnihook: attach db: db names 2 containers: db {number}, db c2; give the whole ID of one\n"
    )
    for namespace, container_id in (
        ("default", number),
        ("other", "c2"),
        ("k8s.io", "pod1"),
        ("k8s.io", "nginx"),
    ):
        host.run("ctr", "-a", address, "-n", namespace, "task", "rm", "--force", container_id)
        host.run("ctr", "-a", address, "-n", namespace, "container", "rm", container_id)


def test_running_container_is_changed_by_its_name(docker: Docker, host: Host) -> None:
    """docker itself publishes no port of one.  Its connections live through all changes."""
    docker("run", "-d", "--network=none", "--name", "web", IMAGE, *FOR_EVER)
    configure_live(host)
    host.run(CNIHOOK, "attach", "web", *ATTACH)
    pid = int(docker("inspect", "--format", "{{.State.Pid}}", "web").stdout)
    change_all(host, host.outside(), by_pid(host, pid, "web"), "web")
    host.run(CNIHOOK, "detach", "web")
    docker("rm", "--force", "web")
    assert host.listdir(RESULTS) == []
