# SPDX-License-Identifier: Apache-2.0
"""The commands with the names and IDs of podman's containers, instead of full IDs."""

import json

from tests.support.commands.listings import shown, shown_json
from tests.support.commands.live import ATTACH, by_pid, change_all, configure_live
from tests.support.host.host import Host
from tests.support.runtimes.oci import CNIHOOK, RESULTS
from tests.support.runtimes.podman import FOLDER, FOR_EVER, IMAGE, LIMITS, Podman

STORAGE = f'[storage]\ndriver = "vfs"\ngraphroot = "{FOLDER}/root"\nrunroot = "{FOLDER}/run"\n'


def test_every_command_takes_the_name_and_the_short_id(host: Host, podman: Podman) -> None:
    """`attach` needs no --root.  A new name is known at once; one that is removed has no name any more."""
    host.write("/etc/containers/storage.conf", STORAGE)
    host.leaves("file /etc/containers/*", "file /run/cnihook/log/*")
    container_id = podman.run(
        "-d", "--rm", "--network=none", "--name", "web", IMAGE, *FOR_EVER
    ).stdout.strip()

    host.run(CNIHOOK, "attach", "web")
    assert [one["container"] for one in shown_json(host, "ps")] == [container_id]
    assert shown(host, "ps").splitlines()[1].split()[0] == "web"
    for text in ("web", container_id[:12]):
        assert shown(host, "check", text) == "well web mynet eth0\n"
        assert json.loads(shown(host, "inspect", text, "--json"))["name"] == "web"
        assert "attached to mynet as eth0" in shown(host, "logs", text)
    joining = ("--network=container:web", "--name", "job", IMAGE, *FOR_EVER)
    joined = podman.run("-d", "--rm", *joining).stdout.strip()
    by_crun = podman("--runtime", "crun", "run", "-d", "--rm", *LIMITS, *joining[:1], IMAGE, *FOR_EVER)
    for text in ("job", joined[:12], by_crun.stdout.strip()):  # which joined the network of the first one
        assert json.loads(shown(host, "inspect", text, "--json"))["container"] == container_id
        assert shown(host, "ps", text).splitlines()[1].split()[0] == "web"
    podman("rm", "--force", "--time", "0", joined, by_crun.stdout.strip())
    podman("rename", "web", "shop")
    assert shown(host, "check", "shop") == "well shop mynet eth0\n"
    host.run(CNIHOOK, "detach", "shop")
    assert host.listdir(RESULTS) == []

    host.run(CNIHOOK, "attach", container_id[:8])
    podman("rm", "--force", "--time", "0", "shop")
    assert shown(host, "ps").splitlines()[1].split()[:3:2] == [container_id[:12], "dead"]
    host.run(CNIHOOK, "gc")
    assert host.listdir(RESULTS) == []


def test_running_container_is_changed_by_its_name(host: Host, podman: Podman) -> None:
    """podman itself publishes no port of one.  Its connections live through all changes."""
    host.write("/etc/containers/storage.conf", STORAGE)
    host.leaves("file /etc/containers/*", "file /run/cnihook/log/*")
    podman.run("-d", "--rm", "--network=none", "--name", "web", IMAGE, *FOR_EVER)
    configure_live(host)
    host.run(CNIHOOK, "attach", "web", *ATTACH)
    change_all(host, host.outside(), by_pid(host, podman.inspect("web")["State"]["Pid"], "web"), "web")
    host.run(CNIHOOK, "detach", "web")
    podman("rm", "--force", "--time", "0", "web")
    assert host.listdir(RESULTS) == []
