# SPDX-License-Identifier: Apache-2.0
"""Podman with the hook, from the files of `cnihook hooks.d` and through cni-runc."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from cnihook.cli import hooks_d
from cnihook.oci import inject
from cnihook.types.errors import CniError
from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import (
    CNIHOOK,
    MYNET,
    RESULTS,
    hook,
    leases,
    wait_for,
)
from tests.support.runtimes.podman import FOR_EVER, IMAGE, LIMITS, Podman

HOOKS = "/run/.host/hooks.d"
CNI_RUNC = str(CHECKOUT / "scripts" / "cni-runc")
FILES = ["90-cnihook-createRuntime.json", "90-cnihook-poststop.json"]
SHOW = (IMAGE, "ip", "-4", "-o", "addr")
ASKING = ("--network", "none", "--annotation", "cnihook.networks=mynet")


@pytest.fixture
def installed(host: Host, podman: Podman) -> Podman:
    hooks(host, "install")
    return podman


def hooks(host: Host, action: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command with --trust-images: the podman of Debian 12 copies an image's annotations."""
    trust = ("--trust-images",) if action == "install" else ()
    outcome = host.run(CNIHOOK, "hooks.d", action, "--dir", HOOKS, *trust, *words, check=check)
    assert outcome.stdout == "" and "Traceback" not in outcome.stderr
    return outcome


def run(podman: Podman, *words: str) -> str:
    return podman("--hooks-dir", HOOKS, "run", *LIMITS, *words).stdout


def released(host: Host) -> bool:
    return leases(host) == host.listdir(RESULTS) == []


# Podman


def test_container_with_an_annotation_gets_its_network(host: Host, installed: Podman) -> None:
    """Podman runs the hook at poststop with the environment of the file, and the network is released."""
    shown = run(installed, "--rm", *ASKING, "--annotation", "cnihook.ip=10.22.0.9", *SHOW)

    assert "eth0    inet 10.22.0.9/16" in shown
    assert released(host)


def test_own_host_name_resolves_to_the_containers_address(host: Host, installed: Podman) -> None:
    """Podman writes 127.0.0.1 for it, because it knows of no network; version 5 does so after the hook."""
    named = ("--cap-add", "NET_RAW", "--name", "web", "--hostname", "app")
    run(installed, "--detach", *ASKING, *named, IMAGE, *FOR_EVER)

    def addresses() -> list[str]:
        return installed("exec", "web", "busybox", "hostname", "-i").stdout.split()

    wait_for(lambda: addresses() == ["10.22.0.2"], "the address of its name")
    assert "PING web (10.22.0.2)" in installed("exec", "web", "ping", "-c1", "web").stdout
    installed("--hooks-dir", HOOKS, "rm", "--force", "--time", "0", "web")
    assert released(host)


@pytest.mark.parametrize("way", ["hook", "cni-runc"])
def test_containers_find_each_other_by_name(host: Host, installed: Podman, way: str) -> None:
    """Podman 5 writes /etc/hosts after the hook; its lines stay."""

    requests = ("networks=mynet", "add-host=far:192.0.2.7", "network-alias=alias-of-")

    def start(name: str, *words: str) -> None:
        named = ("--detach", "--name", name, "--hostname", name, "--network", "none", *words)
        named += ("--cap-add", "NET_RAW")  # ping needs it
        option, prefix = ("--annotation", "cnihook.") if way == "hook" else ("--sysctl", "net.cnihook.")
        for request in requests:
            named += (option, f"{prefix}{request}{name if request.endswith('-') else ''}")
        engine = ["--hooks-dir", HOOKS] if way == "hook" else ["--runtime", CNI_RUNC]
        installed(*engine, "run", *LIMITS, *named, IMAGE, *FOR_EVER)

    start("one")
    start("two", "--add-host", "podmans:192.0.2.8")

    def hosts(name: str) -> str:
        return installed("exec", name, "cat", "/etc/hosts").stdout

    wait_for(lambda: "alias-of-two" in hosts("one") and "alias-of-two" in hosts("two"), "the names")
    assert "(10.22.0.2)" in installed("exec", "two", "ping", "-c1", "-W2", "alias-of-one").stdout
    assert "(10.22.0.3)" in installed("exec", "one", "ping", "-c1", "-W2", "two").stdout
    assert "192.0.2.7\tfar" in hosts("one") and "192.0.2.8" in hosts("two")
    assert "(10.22.0.3)" in installed("exec", "two", "ping", "-c1", "-W2", "two").stdout
    installed("--hooks-dir", HOOKS, "rm", "--force", "--time", "0", "one", "two")
    assert released(host)


@pytest.mark.parametrize("way", ["hook", "cni-runc"])
def test_request_is_served_beside_a_network_of_podman(host: Host, installed: Podman, way: str) -> None:
    """Podman makes the namespace and its network; without `--network none` the container joins it."""
    host.run("ip", "netns", "add", "pub")
    host.run("ip", "netns", "exec", "pub", "ip", "link", "add", "eth0", "type", "bridge")
    option, prefix = ("--annotation", "cnihook.") if way == "hook" else ("--sysctl", "net.cnihook.")
    requests = [word for text in ("networks=mynet", "ip=10.22.0.9") for word in (option, f"{prefix}{text}")]
    engine = ["--hooks-dir", HOOKS] if way == "hook" else ["--runtime", CNI_RUNC]
    shown = installed(
        *engine, "run", *LIMITS, "--rm", "--network", "ns:/run/netns/pub", *requests, *SHOW
    ).stdout

    assert "eth1    inet 10.22.0.9/16" in shown
    assert released(host)
    host.run("ip", "netns", "delete", "pub")


def test_annotation_of_the_working_group_is_recognized(host: Host, installed: Podman) -> None:
    annotation = "k8s.v1.cni.cncf.io/networks=mynet@net1"
    shown = run(installed, "--rm", "--network", "none", "--annotation", annotation, *SHOW)

    assert "net1    inet 10.22.0.2/16" in shown


def test_container_without_an_annotation_does_not_run_the_hook(host: Host, installed: Podman) -> None:
    """A similar annotation does not count either."""
    for words in ((), ("--annotation", "xcnihook.networks=mynet"), ("--annotation", "a=cnihook.networks")):
        shown = run(installed, "--rm", "--network", "none", *words, *SHOW)
        assert "eth0" not in shown
    assert not host.exists("/run/cnihook")


def test_stop_releases_and_start_attaches_again(host: Host, installed: Podman) -> None:
    run(installed, "--detach", "--name", "one", *ASKING, IMAGE, *FOR_EVER)

    assert leases(host) == ["10.22.0.2"]
    assert "inet 10.22.0.2/16" in installed("exec", "one", "ip", "-o", "addr").stdout
    installed("--hooks-dir", HOOKS, "stop", "--time", "0", "one")
    assert released(host)
    installed("--hooks-dir", HOOKS, "start", "one")
    assert leases(host) == ["10.22.0.3"]
    installed("rm", "--force", "--time", "0", "one")
    assert released(host)


def test_container_that_ends_by_itself_is_released(host: Host, installed: Podman) -> None:
    run(installed, "--detach", "--name", "one", *ASKING, IMAGE, "true")

    wait_for(lambda: released(host), "the hook at poststop")
    installed("rm", "one")


def test_podman_shows_a_failure(host: Host, installed: Podman) -> None:
    words = ("--network", "none", "--annotation", "cnihook.networks=nonet")
    outcome = installed("--hooks-dir", HOOKS, "run", "--rm", *LIMITS, *words, IMAGE, "true", check=False)

    assert outcome.returncode != 0 and "no network 'nonet'" in outcome.stderr
    assert released(host)
    host.leaves("file /run/cnihook/log/*")


def test_removed_hook_is_not_run(host: Host, installed: Podman) -> None:
    hooks(host, "remove")

    assert host.listdir(HOOKS) == []
    assert "eth0" not in run(installed, "--rm", *ASKING, *SHOW)


def test_install_option_for_the_folder_of_networks_is_used(host: Host, podman: Podman) -> None:
    host.write("/run/.host/net.d/10-other.conf", MYNET.replace("mynet", "other"))
    hooks(host, "install", "--conf-dir", "/run/.host/net.d")

    words = ("--network", "none", "--annotation", "cnihook.networks=other")
    assert "inet 10.22.0.2/16" in run(podman, "--rm", *words, *SHOW)


def test_podman_reads_the_default_folder_by_itself(host: Host, podman: Podman) -> None:
    """The test uses a copy of the machine's folder."""
    share = "/usr/share/containers"
    host.run("sh", "-c", f"cp -r {share} /run/.host/share; mount --bind /run/.host/share {share}")
    host.run(CNIHOOK, "hooks.d", "install", "--trust-images")
    try:
        shown = podman.run("--rm", *ASKING, *SHOW).stdout
        assert "eth0    inet 10.22.0.2/16" in shown

        host.write(f"/etc/containers/oci/hooks.d/{FILES[0]}", "{}")
        masked = host.run(CNIHOOK, "hooks.d", "install", "--trust-images").stderr
        assert masked.count("\n") == 1 and f"/etc/containers/oci/hooks.d/{FILES[0]}" in masked
    finally:
        host.run("umount", share)
    host.leaves("dir /run/mount", "* /etc/containers*")
    assert released(host)


def test_cni_runc_needs_no_files(host: Host, podman: Podman) -> None:
    runtime = ("--runtime", CNI_RUNC)
    asking = ("--network", "none", "--sysctl", "net.cnihook.networks=mynet")
    shown = podman(*runtime, "run", "--rm", *LIMITS, *asking, *SHOW).stdout

    assert "eth0    inet 10.22.0.2/16" in shown
    assert released(host)


def test_hook_and_cni_runc_together_attach_once(host: Host, installed: Podman) -> None:
    host.write("/etc/cnihook/config.json", '{"annotations": {"trustImages": true}}')
    host.leaves("* /etc/cnihook*")
    runtime = ("--runtime", CNI_RUNC, "--hooks-dir", HOOKS)
    shown = installed(*runtime, "run", "--rm", *LIMITS, *ASKING, *SHOW).stdout

    assert shown.count(" inet 10.22.") == 1
    assert released(host)


# The files, without podman


def test_files_have_the_keys_that_engines_need(host: Host) -> None:
    hooks(host, "install")

    assert host.listdir(HOOKS) == [FILES[0], "90-cnihook-folders", FILES[1]]
    for name, stage in zip(FILES, ("createRuntime", "poststop"), strict=True):
        content = json.loads(host.read(f"{HOOKS}/{name}"))
        assert set(content) == {"version", "hook", "when", "stages"}
        assert content["version"] == "1.0.0" and content["stages"] == [stage]
        assert content["hook"]["args"][3:] == [stage, *(["--trust-images"] if stage != "poststop" else [])]
        assert os.access(content["hook"]["path"], os.X_OK)
        assert (host.root / HOOKS.lstrip("/") / name).stat().st_mode & 0o777 == 0o644


def test_install_is_idempotent_and_replaces_other_install(host: Host) -> None:
    hooks(host, "install")
    once = [host.read(f"{HOOKS}/{name}") for name in FILES]
    moved = json.loads(once[0])
    moved["hook"]["args"][2] = "/gone/scripts/cnihook"
    host.write(f"{HOOKS}/{FILES[0]}", json.dumps(moved))

    hooks(host, "install")
    assert [host.read(f"{HOOKS}/{name}") for name in FILES] == once
    hooks(host, "remove")
    hooks(host, "remove")
    assert host.listdir(HOOKS) == []


@pytest.mark.parametrize("content", ['{"version": "1.0.0", "hook": {"path": "/usr/bin/true"}}', "{", ""])
def test_file_of_another_program_is_left_alone(host: Host, content: str) -> None:
    host.write(f"{HOOKS}/{FILES[1]}", content)

    for action in ("install", "remove"):
        outcome = hooks(host, action, check=False)
        assert (
            outcome.returncode == 1
            and "not written by cnihook" in outcome.stderr
            and outcome.stderr.count("\n") == 1
        )
    assert host.listdir(HOOKS) == [FILES[1]] and host.read(f"{HOOKS}/{FILES[1]}") == content


@pytest.mark.parametrize("text", ["raise SystemExit('half of it is missing')", None], ids=["broken", "gone"])
def test_hook_that_cannot_be_started_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    """The engine would reject every container because of the file, even one without annotations."""
    program = tmp_path / "cnihook"
    if text:
        program.write_text(text)
    monkeypatch.setattr(inject, "launcher", lambda: str(program))

    with pytest.raises(CniError, match=f"{program} --version fails: .*(missing|No such file)"):
        hooks_d._install(str(tmp_path / "hooks.d"), {})
    assert not (tmp_path / "hooks.d").exists()


def test_invalid_files_are_removed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_d, "content", lambda stage, *_: json.dumps({"hook": {}, "stages": stage}))

    for folder in (tmp_path, tmp_path / "oci/hooks.d"):
        with pytest.raises(CniError, match="it is removed again"):
            hooks_d._install(str(folder), {})
        assert os.listdir(tmp_path) == []


def test_remove_removes_the_folders_that_install_made(tmp_path: Path) -> None:
    folder, others = tmp_path / "oci/hooks.d", tmp_path / "oci/other"
    for _time in range(2):  # the second one finds the folders of the first
        hooks_d._install(str(folder), {})
    hooks_d._remove(str(folder))
    assert os.listdir(tmp_path) == []

    hooks_d._install(str(folder), {})
    others.write_text("")
    hooks_d._remove(str(folder))
    assert list(tmp_path.rglob("*")) == [tmp_path / "oci", others], "another program's file and its folder"

    folder.mkdir()
    hooks_d._install(str(folder), {})
    hooks_d._remove(str(folder))
    assert folder.is_dir(), "it was there before"


def test_file_of_poststop_is_written_first_and_removed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted install or remove must not leave createRuntime without poststop."""
    seen: list[list[str]] = []

    def watched(function: str) -> None:
        original = getattr(os, function)

        def watch(path: str, *arguments: str) -> None:
            original(path, *arguments)
            seen.append(sorted(name for name in os.listdir(tmp_path) if name.endswith(".json")))

        monkeypatch.setattr(os, function, watch)

    watched("replace")
    watched("unlink")
    hooks_d._install(str(tmp_path), {})
    hooks_d._remove(str(tmp_path))

    assert seen == [[FILES[1]], FILES, [FILES[1]], []]


def test_hook_registered_by_hand_is_recognized(host: Host) -> None:
    content = {
        "version": "1.0.0",
        "hook": hook("poststop"),
        "when": {"always": True},
        "stages": ["poststop"],
    }
    host.write(f"{HOOKS}/{FILES[1]}", json.dumps(content))

    hooks(host, "install")
    assert "annotations" in json.loads(host.read(f"{HOOKS}/{FILES[1]}"))["when"]
