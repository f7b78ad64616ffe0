# SPDX-License-Identifier: Apache-2.0
"""runtime.cni: the library, with plugins that record their input."""

import os
from pathlib import Path
from typing import Any

import pytest

from cnihook.linux.flock import Lock, LockBusyError
from cnihook.runtime import records
from cnihook.runtime.cni import CNI
from cnihook.runtime.engine import ContainerIdInUseError
from cnihook.runtime.identity import ProcessIdentity, boot_id, process_start
from cnihook.runtime.networks import Network
from cnihook.types.errors import CniError
from tests.unit.standins import RESULT, Plugins, answer, network, refuse

OWN = "/proc/self/ns/net"  # a namespace that exists during the test


NET = network("one", "two", version="1.1.0")


# Plugins of a network


def test_validation_returns_the_capabilities_of_the_plugins(cni: CNI, plugins: Plugins) -> None:
    for name in ("one", "two"):
        plugins.make(name, VERSION=answer({"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"]}))
    one = {"type": "one", "capabilities": {"ips": True, "mac": False}}
    two = {"type": "two", "capabilities": {"portMappings": True, "ips": True}}

    assert cni.validate(network(one, two)) == ["ips", "portMappings"]
    assert plugins.calls == ["one VERSION", "two VERSION"]
    assert plugins.environment(0)["CNI_CONTAINERID"] == ""


def test_validation_reports_all_errors(cni: CNI, plugins: Plugins) -> None:
    plugins.make("one", VERSION=answer({"cniVersion": "0.4.0", "supportedVersions": ["0.4.0"]}))

    with pytest.raises(CniError, match="incompatible CNI versions") as failed:
        cni.validate(network("one", "nowhere"))
    assert failed.value.code == 1
    (note,) = failed.value.__notes__
    assert 'failed to find plugin "nowhere"' in note and "plugins[1]" in note


@pytest.mark.parametrize(
    ("answered", "versions"),
    [
        (answer({"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}), ["0.4.0", "1.0.0"]),
        (answer({"cniVersion": "0.2.0"}), ["0.1.0", "0.2.0"]),
        (refuse(4, "unknown CNI_COMMAND: VERSION"), ["0.1.0"]),
    ],
)
def test_versions_of_old_plugins_are_read(
    cni: CNI, plugins: Plugins, answered: str, versions: list[str]
) -> None:
    plugins.make("one", VERSION=answered)

    assert list(cni.versions("one")) == versions


@pytest.mark.parametrize(
    "answered", ["true", "echo log line", answer([]), answer({"cniVersion": "1.0.0"}), refuse(7, "no")]
)
def test_plugin_without_a_valid_version_answer_is_an_error(
    cni: CNI, plugins: Plugins, answered: str
) -> None:
    plugins.make("one", VERSION=answered)

    with pytest.raises(CniError):
        cni.versions("one")


def test_versions_of_a_built_in_plugin_are_its_own(cni: CNI) -> None:
    assert "1.1.0" in cni.versions("bridge")


# One attachment


def test_attachment_is_on_record_before_its_first_plugin_runs(cni: CNI, plugins: Plugins) -> None:
    """A process that is killed during ADD leaves a record, which the clean-up needs."""
    plugins.make("one", ADD=f"cat {records.FOLDER}/mynet-c1-eth0 >&2; {answer(RESULT)}")

    attachment = cni.add(NET, "c1", netns=OWN)

    assert str(attachment.result.ips[0].net) == "10.1.2.3/24"
    (present,) = cni.attachments("c1")
    assert present.record.identity == attachment.record.identity == ("mynet", "c1", "eth0")
    assert present.record.netns == OWN
    assert present.network == NET and present.result == attachment.result
    assert cni.attachment("mynet", "c2") is None


def test_arguments_and_capabilities_reach_the_plugins_at_add_and_del(cni: CNI, plugins: Plugins) -> None:
    with_ips = network({"type": "one", "capabilities": {"ips": True}})
    cni.add(
        with_ips,
        "c1",
        "data0",
        netns=OWN,
        cni_args={"IP": "10.1.2.3"},
        capability_args={"ips": ["10.1.2.3"]},
    )
    cni.delete("mynet", "c1", "data0")

    assert plugins.calls == ["one ADD", "one DEL"]
    for call in (0, 1):
        assert plugins.environment(call)["CNI_ARGS"] == "IP=10.1.2.3"
        assert plugins.environment(call)["CNI_IFNAME"] == "data0"
        assert plugins.stdin(call)["runtimeConfig"] == {"ips": ["10.1.2.3"]}
    assert cni.attachments() == []


def test_capability_that_no_plugin_takes_is_an_error(cni: CNI, plugins: Plugins) -> None:
    """Otherwise the attachment would get another address than the requested one, without a message."""
    with pytest.raises(CniError, match="none of its plugins has the capability ips") as failed:
        cni.add(NET, "c1", netns=OWN, capability_args={"ips": ["10.1.2.3"]})

    assert failed.value.details == 'add "capabilities": {"ips": true} to the plugin that takes it'
    assert (plugins.calls, cni.attachments()) == ([], [])


def test_failed_add_leaves_no_record(cni: CNI, plugins: Plugins) -> None:
    plugins.make("two", ADD=refuse(11, "later"))

    with pytest.raises(CniError, match="later") as failed:
        cni.add(NET, "c1", netns=OWN)
    assert failed.value.code == 11
    assert cni.attachments() == []


def test_add_that_could_not_be_undone_stays_on_record(cni: CNI, plugins: Plugins) -> None:
    plugins.make("two", ADD=refuse(7, "no"), DEL=refuse(999, "stuck"))
    with pytest.raises(CniError, match="no"):
        cni.add(NET, "c1", netns=OWN)
    assert len(cni.attachments("c1")) == 1

    plugins.make("two")
    cni.delete("mynet", "c1")
    assert cni.attachments() == []


def test_add_whose_first_undo_failed_is_undone_again(cni: CNI, plugins: Plugins, state: Path) -> None:
    once = f"[ -e {state}/again ] && exit; touch {state}/again; {refuse(999, 'stuck')}"
    plugins.make("two", ADD=refuse(7, "no"), DEL=once)

    with pytest.raises(CniError, match="no"):
        cni.add(NET, "c1", netns=OWN)
    assert plugins.calls == ["one ADD", "two ADD", *["two DEL", "one DEL"] * 2]
    assert cni.attachments() == []


def test_id_of_a_container_that_lives_in_another_namespace_is_refused(cni: CNI, plugins: Plugins) -> None:
    cni.add(NET, "c1", netns=OWN)
    record = cni.attachments("c1")[0].record
    parent = os.getppid()
    record.process = ProcessIdentity(boot_id(), parent, process_start(parent) or 0, (1, 2))
    record.write()

    with pytest.raises(ContainerIdInUseError, match=f"another container c1 lives, process {parent}"):
        cni.add(NET, "c1", netns=OWN)
    assert plugins.calls == ["one ADD", "two ADD"] and len(cni.attachments("c1")) == 1


def test_interface_is_added_once(cni: CNI, plugins: Plugins) -> None:
    cni.add(NET, "c1", netns=OWN)

    with pytest.raises(CniError, match="c1 has eth0 already, on network mynet"):
        cni.add(NET, "c1", netns=OWN)
    assert plugins.calls == ["one ADD", "two ADD"]
    cni.add(network("one", name="other"), "c1", "eth1", netns=OWN)
    assert [each.record.ifname for each in cni.attachments("c1")] == ["eth0", "eth1"]


def test_add_does_not_touch_the_record_of_another_attachment(cni: CNI, plugins: Plugins) -> None:
    """The names a-b and c, and a and b-c, make one file name."""
    cni.add(network("one", name="a-b"), "c", netns=OWN)

    with pytest.raises(CniError, match="its record would have the file name of the record of container c"):
        cni.add(network("one", name="a"), "b-c", netns=OWN)
    assert plugins.calls == ["one ADD"]
    assert [each.record.network for each in cni.attachments("c")] == ["a-b"]


def test_remains_of_a_killed_add_are_removed_first(cni: CNI, plugins: Plugins) -> None:
    cni.add(NET, "c1", netns=OWN)
    record = cni.attachments("c1")[0].record
    record.result = None
    record.write()

    cni.add(NET, "c1", netns=OWN)
    assert plugins.calls[2:] == ["two DEL", "one DEL", "one ADD", "two ADD"]


@pytest.mark.parametrize("netns", ["/nowhere", "/etc/hostname", ""])
def test_no_plugin_runs_if_the_path_is_not_a_namespace(cni: CNI, plugins: Plugins, netns: str) -> None:
    with pytest.raises(CniError, match="failed to open netns"):
        cni.add(NET, "c1", netns=netns)
    assert plugins.calls == [] and cni.attachments() == []


def test_delete_without_a_record_succeeds(cni: CNI, plugins: Plugins) -> None:
    cni.delete("mynet", "c1")
    assert plugins.calls == []


def test_delete_without_a_record_runs_the_plugins_of_a_given_network(cni: CNI, plugins: Plugins) -> None:
    """The runtime that attached the container may keep no records, or have lost this one."""
    cni.delete(NET, "c1", netns="/run/netns/gone")

    assert plugins.calls == ["two DEL", "one DEL"]
    assert plugins.environment(0)["CNI_NETNS"] == "/run/netns/gone"
    assert "prevResult" not in plugins.stdin(0)


def test_failed_delete_continues_and_can_be_repeated(cni: CNI, plugins: Plugins) -> None:
    cni.add(NET, "c1", netns=OWN)
    plugins.make("two", DEL=refuse(999, "stuck"))

    with pytest.raises(CniError, match="stuck"):
        cni.delete("mynet", "c1")
    assert plugins.calls[2:] == ["two DEL", "one DEL"]

    plugins.make("two")
    cni.delete("mynet", "c1")
    assert cni.attachments() == []


def test_check_needs_a_record(cni: CNI, plugins: Plugins) -> None:
    with pytest.raises(CniError, match="c1 is not on network mynet") as failed:
        cni.check("mynet", "c1")
    assert failed.value.code == 3

    cni.add(NET, "c1", netns=OWN)
    cni.check("mynet", "c1")
    assert plugins.calls[2:] == ["one CHECK", "two CHECK"]
    assert plugins.stdin(2)["prevResult"]["ips"] == [{"address": "10.1.2.3/24"}]


def test_records_may_be_kept_in_another_folder(plugins: Plugins, state: Path) -> None:
    own = CNI(str(state / "net.d"), [str(plugins.folder)], state_dir=str(state / "own"))
    own.add(NET, "c1", netns=OWN)

    assert os.listdir(state / "own") == ["mynet-c1-eth0"]
    assert records.all_records() == []
    own.delete(NET, "c1")
    assert os.listdir(state / "own") == []


def test_only_one_operation_at_a_time_runs_on_a_container(cni: CNI, plugins: Plugins) -> None:
    """On a timeout, the error names the operation that has the lock."""
    with Lock("container-c1", purpose="attach c1"):
        for operation in (lambda: cni.add(NET, "c1", netns=OWN), lambda: cni.delete("mynet", "c1")):
            with pytest.raises(LockBusyError, match="attach c1"):
                operation()
        cni.add(NET, "c2", netns=OWN)


# A whole network


def test_status_raises_the_error_of_the_first_plugin_that_is_not_ready(cni: CNI, plugins: Plugins) -> None:
    cni.status(NET)
    assert plugins.calls == ["one STATUS", "two STATUS"]

    plugins.make("one", STATUS=refuse(50, "not ready"))
    with pytest.raises(CniError, match="not ready") as failed:
        cni.status(NET)
    assert failed.value.code == 50


def test_status_and_gc_run_no_plugin_below_1_1_0(cni: CNI, plugins: Plugins) -> None:
    old = network("one", version="1.0.0")
    cni.status(old)
    cni.gc(old)
    assert plugins.calls == []


def gc_list(plugins: Plugins, index: int) -> Any:
    conf = plugins.stdin(index)
    assert conf["cni.dev/attachments"] == conf["cni.dev/valid-attachments"], "both names of the key"
    return conf["cni.dev/valid-attachments"]


def test_gc_keeps_live_attachments(cni: CNI, plugins: Plugins) -> None:
    cni.add(NET, "c1", netns=OWN)

    assert cni.gc(NET) == []
    assert plugins.calls[2:] == ["one GC", "two GC"]
    assert gc_list(plugins, 2) == [{"containerID": "c1", "ifname": "eth0"}]
    assert "runtimeConfig" not in plugins.stdin(2) and "prevResult" not in plugins.stdin(2)


def test_gc_removes_stale_attachments(cni: CNI, plugins: Plugins) -> None:
    cni.add(NET, "c1", netns=OWN)
    cni.add(NET, "c2", netns=OWN)
    record = cni.attachments("c1")[0].record
    record.netns = "/run/netns/gone"
    record.process = ProcessIdentity("an earlier one", 0, 0, (0, 0))
    record.write()

    assert [each.record.container_id for each in cni.gc(NET)] == ["c1"]
    assert plugins.calls[4:] == ["two DEL", "one DEL", "one GC", "two GC"]
    assert gc_list(plugins, 6) == [{"containerID": "c2", "ifname": "eth0"}]


def test_gc_keeps_only_what_an_explicit_list_names(cni: CNI, plugins: Plugins) -> None:
    """The list may be empty.  The plugins keep an attachment that is on it, even without a record."""
    cni.add(NET, "c1", netns=OWN)

    cni.gc(NET, [("c9", "eth0")])
    assert cni.attachments() == []
    assert gc_list(plugins, 4) == [{"containerID": "c9", "ifname": "eth0"}]
    cni.gc(NET, [])
    assert gc_list(plugins, 6) == []


def test_gc_leaves_other_networks_alone(cni: CNI, plugins: Plugins) -> None:
    cni.add(network("one", name="mynet-2"), "c1", netns=OWN)

    cni.gc(NET, [])
    assert len(cni.attachments()) == 1


def test_gc_continues_after_a_failure(cni: CNI, plugins: Plugins) -> None:
    cni.add(NET, "c1", netns=OWN)
    plugins.make("one", GC=refuse(999, "broken"), DEL=refuse(999, "stuck"))

    with pytest.raises(CniError, match="stuck") as failed:
        cni.gc(NET, [])
    assert plugins.calls[2:] == ["two DEL", "one DEL", "one GC", "two GC"]
    (note,) = failed.value.__notes__
    assert "broken" in note
    assert gc_list(plugins, 4) == [{"containerID": "c1", "ifname": "eth0"}], "it is still attached"


def test_gc_can_be_switched_off(cni: CNI, plugins: Plugins) -> None:
    off: Network = network("one", version="1.1.0", disableGC=True)
    cni.add(off, "c1", netns=OWN)

    assert cni.gc(off, []) == []
    assert plugins.calls == ["one ADD"] and len(cni.attachments()) == 1


def test_gc_waits_for_running_adds_and_dels(cni: CNI, plugins: Plugins) -> None:
    with Lock("network-mynet", shared=True, purpose="container c1 on network mynet"):
        cni.add(NET, "c2", netns=OWN)
        with pytest.raises(LockBusyError, match="container c1"):
            cni.gc(NET)
