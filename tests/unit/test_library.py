# SPDX-License-Identifier: Apache-2.0
"""The library as a program sees it: the names of the package, networks, attachments, errors."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cnihook
from cnihook import CNI, CniError, Network
from cnihook.linux.flock import Lock, LockBusyError
from cnihook.request.request import ContainerRequest, NetworkRequest, PortRequest
from cnihook.runtime.addition import NotAttachedError
from cnihook.runtime.identity import ProcessIdentity
from cnihook.runtime.networks import NetworkNotFoundError
from cnihook.runtime.records import DamagedRecordError
from tests.support.plugins.cni import CHECKOUT
from tests.unit.standins import Plugins, answer, network, refuse
from tests.unit.test_cni import OWN

CONF = {"cniVersion": "1.1.0", "name": "mynet", "plugins": [{"type": "one"}]}


@pytest.fixture
def folder(state: Path) -> Path:
    """Return a folder with a malformed file and two networks whose names are not in the files' order."""
    folder = state / "net.d"
    folder.mkdir()
    (folder / "10-broken.conf").write_text("{")
    write(folder, "20-net.conflist", CONF)
    write(folder, "30-a.conflist", {**CONF, "name": "a"})
    return folder


def write(folder: Path, name: str, conf: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(conf))


# The package


def test_library_is_imported_from_the_package_at_first_use() -> None:
    """`import cnihook` alone costs nothing, since each start of a container does it."""
    code = (
        "import sys, cnihook; before = set(sys.modules)\n"
        "assert not [name for name in before if name.startswith('cnihook.')]\n"
        "for name in cnihook.__all__:\n"
        "    value = getattr(cnihook, name)\n"
        "    assert value.__name__ == name and value.__module__ == f'cnihook.{cnihook._MODULES[name]}'\n"
        "print(hasattr(cnihook, 'Nothing'))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True
    )
    assert process.stdout == "False\n"


def test_package_says_that_it_is_typed() -> None:
    assert (CHECKOUT / "cnihook/py.typed").is_file()
    assert set(cnihook.__all__) == set(cnihook._MODULES)


# Networks


def test_networks_are_a_mapping_in_the_order_of_the_files(cni: CNI, folder: Path) -> None:
    networks = cni.networks

    assert list(networks) == ["mynet", "a"] and len(networks) == 2
    assert networks["mynet"].source == f"{folder}/20-net.conflist"
    assert "a" in networks and networks.get("b") is None
    (problem,) = networks.problems
    assert "10-broken.conf" in str(problem)


def test_networks_are_read_at_each_access_and_then_stay(cni: CNI, folder: Path) -> None:
    before = cni.networks
    write(folder, "40-b.conflist", {**CONF, "name": "b"})

    assert "b" not in before and "b" in cni.networks


def test_folder_without_configuration_has_the_built_in_network(cni: CNI) -> None:
    assert list(cni.networks) == ["cnihook"] and cni.networks.problems == []


def test_unknown_network_is_reported_with_the_known_ones(cni: CNI, folder: Path) -> None:
    with pytest.raises(NetworkNotFoundError, match="other.*mynet.*10-broken.conf") as failed:
        cni.networks["other"]
    assert len(failed.value.problems) == 1
    assert isinstance(failed.value, CniError) and isinstance(failed.value, KeyError)


def test_every_operation_takes_a_network_by_name(cni: CNI, folder: Path, plugins: Plugins) -> None:
    plugins.make("one", VERSION=answer({"cniVersion": "1.1.0", "supportedVersions": ["1.1.0"]}))
    cni.validate("mynet")
    cni.status("mynet")
    cni.add("mynet", "c1", netns=OWN)
    cni.check("mynet", "c1")
    cni.gc("mynet")
    assert cni.live_attachments("mynet") == {("c1", "eth0")} and cni.stale_attachments("mynet") == []
    cni.delete("mynet", "c1")

    operations = ["VERSION", "STATUS", "ADD", "CHECK", "GC", "DEL"]
    assert plugins.calls == [f"one {operation}" for operation in operations]
    with pytest.raises(NetworkNotFoundError):
        cni.add("other", "c1", netns=OWN)


def test_delete_by_name_without_a_record_uses_the_configured_network(
    cni: CNI, folder: Path, plugins: Plugins
) -> None:
    cni.delete("mynet", "c1", netns="/run/netns/gone")
    cni.delete("other", "c1")

    assert plugins.calls == ["one DEL"]


# Attachments


def test_attachment_checks_and_deletes_itself(cni: CNI, plugins: Plugins) -> None:
    attachment = cni.add(network("one"), "c1", "data0", netns=OWN)
    attachment.check()
    attachment.delete()
    attachment.delete()

    assert plugins.calls == ["one ADD", "one CHECK", "one DEL"]
    assert cni.attachments("c1") == []
    with pytest.raises(NotAttachedError, match="c1 is not on network mynet with data0"):
        attachment.check()


def test_attachment_from_its_record_has_the_network_as_it_was(cni: CNI, folder: Path) -> None:
    cni.add("mynet", "c1", netns=OWN)
    write(folder, "20-net.conflist", {**CONF, "plugins": [{"type": "two"}]})

    attachment = cni.attachment("mynet", "c1")
    assert attachment and [plugin["type"] for plugin in attachment.network.plugins] == ["one"]
    assert [str(ip.net) for ip in attachment.result.ips] == ["10.1.2.3/24"]
    attachment.delete()
    assert cni.attachment("mynet", "c1") is None


def test_attachment_is_deleted_under_the_lock_of_its_container(cni: CNI) -> None:
    attachment = cni.add(network("one"), "c1", netns=OWN)

    with Lock("container-c1", purpose="attach c1"), pytest.raises(LockBusyError, match="attach c1"):
        attachment.delete()


def test_incomplete_attachment_has_an_empty_result(cni: CNI) -> None:
    record = cni.add(network("one"), "c1", netns=OWN).record
    record.result = None
    record.write()

    (attachment,) = cni.attachments()
    assert attachment.result == cnihook.Result()


def test_attachment_of_a_record_without_configuration_can_still_be_listed(cni: CNI) -> None:
    record = cni.add(network("one"), "c1", netns=OWN).record
    record.config = b"{"
    record.write()

    (attachment,) = cni.attachments("c1")
    with pytest.raises(DamagedRecordError, match="holds no configuration"):
        _ = attachment.network


def test_attachments_of_an_empty_id_are_an_error(cni: CNI) -> None:
    """An empty variable of a program must not stand for all containers."""
    with pytest.raises(CniError, match="container ID"):
        cni.attachments("")


@pytest.mark.parametrize(
    ("key", "value"), [("", "x"), ("A;B", "x"), ("A=B", "x"), ("A", "x;IP=1"), ("A", "=")]
)
def test_cni_args_that_would_make_other_pairs_are_refused(cni: CNI, key: str, value: str) -> None:
    for operation in (lambda args: cni.add(network("one"), "c1", netns=OWN, cni_args=args),
                      lambda args: cni.delete(network("one"), "c1", cni_args=args)):  # fmt: skip
        with pytest.raises(CniError, match="invalid CNI_ARGS pair") as failed:
            operation({key: value})
        assert failed.value.code == 4


def test_failed_delete_of_an_attachment_can_be_repeated(cni: CNI, plugins: Plugins) -> None:
    attachment = cni.add(network("one"), "c1", netns=OWN)
    plugins.make("one", DEL=refuse(999, "stuck"))
    with pytest.raises(CniError, match="stuck"):
        attachment.delete()

    plugins.make("one")
    attachment.delete()
    assert cni.attachments() == []


# Values


def test_values_show_what_they_are(cni: CNI, folder: Path) -> None:
    attachment = cni.add("mynet", "c1", netns=OWN, cni_args={"SECRET": "x"})
    request = NetworkRequest("mynet")
    request.ports.append(PortRequest(80, 8080, 8080, "tcp", ""))

    assert repr(attachment) == "Attachment('mynet', 'c1', 'eth0')"
    assert repr(attachment.record) == "Record('mynet', 'c1', 'eth0')"
    assert repr(attachment.network) == f"<Network 'mynet': one; from {folder}/20-net.conflist>"
    assert repr(cni.networks) == f"<Networks of {folder}: mynet, a, 1 problems>"
    port = "PortRequest(container=80, first=8080, last=8080, protocol='tcp')"
    assert repr(request) == f"NetworkRequest(network='mynet', ports=[{port}])"
    assert repr(ProcessIdentity("boot", 7, 9, (1, 2))) == (
        "ProcessIdentity(boot='boot', netns_id=(1, 2), pid=7, start=9)"
    )
    assert repr(cni) == f"CNI({str(folder)!r}, plugin_dirs={cni.plugin_dirs!r}, state_dir={cni.state_dir!r})"


def test_equal_values_are_equal(cni: CNI, folder: Path) -> None:
    write(folder, "50-copy.conflist", {**CONF, "name": "a"})

    assert cni.networks["mynet"] == cni.networks["mynet"] != cni.networks["a"]
    assert len({cni.networks["mynet"], cni.networks["mynet"]}) == 1
    assert Network.__eq__(cni.networks["a"], "a") is NotImplemented
    assert NetworkRequest("a") == NetworkRequest("a") != NetworkRequest("a", "eth1")
    assert ContainerRequest([NetworkRequest("a")]) == ContainerRequest([NetworkRequest("a")])
    assert ProcessIdentity("boot", 7, 9, (1, 2)) != ProcessIdentity("boot", 7, 8, (1, 2))
