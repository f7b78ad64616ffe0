# SPDX-License-Identifier: Apache-2.0
"""runtime.chain: what each plugin of a network receives, in which order, and what follows a failure."""

import copy
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.process.signals import Interrupted
from cnihook.runtime import chain
from cnihook.types.errors import CniError
from cnihook.types.result import Result
from tests.support.plugins.cni import VERSIONS
from tests.unit.standins import Plugins, answer, network, refuse

THREE = ("one", "two", "three")
RESULT = Result.from_json({"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}, "")


@pytest.fixture
def plugins(state: Path) -> Plugins:
    plugins = Plugins(state)
    for name in THREE:
        plugins.make(name)
    return plugins


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


# What a plugin receives


def derive(plugin: dict[str, Any], args: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    return chain.derive(network({"type": "x", **plugin}, **keys), 0, args or {}, None)


def test_plugin_gets_name_and_version_of_the_list() -> None:
    conf = derive({"name": "own", "cniVersion": "0.1.0", "mtu": 1400}, disableCheck=True, other={"a": 1})

    assert conf == {"type": "x", "name": "mynet", "cniVersion": "1.0.0", "mtu": 1400}


def test_plugin_gets_the_negotiated_version() -> None:
    assert derive({}, cniVersions=["0.4.0", "1.1.0"])["cniVersion"] == "1.1.0"


@pytest.mark.parametrize(
    ("capabilities", "args", "runtime_config"),
    [
        ({"portMappings": True}, {"portMappings": [1]}, {"portMappings": [1]}),
        ({"portMappings": True, "mac": True}, {"mac": "aa"}, {"mac": "aa"}),
        ({"portMappings": False}, {"portMappings": [1]}, None),
        ({"portMappings": None}, {"portMappings": [1]}, None),
        ({"portMappings": True}, {"bandwidth": {}}, None),
        ({"portMappings": True}, {}, None),
        ({}, {"portMappings": [1]}, None),
        (None, {"portMappings": [1]}, None),
        ({"ips": True}, {"ips": []}, {"ips": []}),
    ],
)
def test_runtime_config_has_the_arguments_of_declared_capabilities(
    capabilities: Any, args: Any, runtime_config: Any
) -> None:
    """The key is absent if there is no such argument."""
    conf = derive({"capabilities": capabilities}, args)

    assert conf.get("runtimeConfig") == runtime_config
    assert "capabilities" not in conf


def test_runtime_config_of_the_file_is_replaced_if_the_runtime_has_one() -> None:
    own = {"runtimeConfig": {"mac": "aa"}, "capabilities": {"ips": True}}

    assert derive(own)["runtimeConfig"] == {"mac": "aa"}
    assert derive(own, {"ips": ["10.1.2.3"]})["runtimeConfig"] == {"ips": ["10.1.2.3"]}


def test_keys_of_the_runtime_in_a_file_are_removed() -> None:
    """Otherwise a file could control what a plugin collects as garbage."""
    conf = derive(
        {"cni.dev/valid-attachments": [], "cni.dev/attachments": [], "cni.dev/x": 1, "cni.devx": 2}
    )

    assert conf == {"type": "x", "name": "mynet", "cniVersion": "1.0.0", "cni.devx": 2}


def test_capabilities_are_removed_in_any_case_of_letters() -> None:
    conf = derive({"Capabilities": {"mac": True}}, {"mac": "aa"})

    assert conf == {"type": "x", "name": "mynet", "cniVersion": "1.0.0", "runtimeConfig": {"mac": "aa"}}


def test_prev_result_has_the_version_of_the_list() -> None:
    for version in VERSIONS:
        conf = chain.derive(network("x", version=version), 0, {}, RESULT)
        assert conf["prevResult"] == RESULT.to_json(version)
        assert conf["prevResult"]["cniVersion"] == version


@given(
    st.dictionaries(
        st.sampled_from(["mtu", "name", "cniVersion", "runtimeConfig", "x"]), st.just({"a": [1]})
    ),
    st.dictionaries(st.sampled_from("abc"), st.booleans()),
    st.dictionaries(st.sampled_from("abc"), st.integers()),
)
def test_deriving_changes_neither_network_nor_arguments(
    plugin: dict[str, Any], capabilities: dict[str, Any], args: dict[str, Any]
) -> None:
    """The next operation derives from the same objects."""
    original = network({**plugin, "type": "x", "capabilities": capabilities})
    before = copy.deepcopy((original.plugins, args, original.text))

    conf = chain.derive(original, 0, args, RESULT)
    conf["new"] = conf["type"] = "changed"

    assert (original.plugins, args, original.text) == before
    assert conf.get("runtimeConfig", {}).keys() >= {key for key in args if capabilities.get(key)}


# ADD


def test_add_runs_forward_and_passes_the_result_on(plugins: Plugins) -> None:
    result = chain.add(network(*THREE), plugins.request(), {})

    assert plugins.calls == ["one ADD", "two ADD", "three ADD"]
    assert "prevResult" not in plugins.stdin(0)
    assert plugins.stdin(1)["prevResult"] == {"cniVersion": "1.0.0", "dns": {"domain": "one"}}
    assert plugins.stdin(2)["prevResult"] == {"cniVersion": "1.0.0", "dns": {"domain": "two"}}
    assert result.dns.domain == "three"


def test_result_of_another_version_is_converted_to_the_lists(plugins: Plugins) -> None:
    """The next plugin may only know the result types of its own version."""
    plugins.make("one", ADD=answer({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24"}}))

    chain.add(network("one", "two"), plugins.request(), {})

    assert plugins.stdin(1)["prevResult"] == {"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}


def test_capabilities_reach_the_plugins_that_declare_them(plugins: Plugins) -> None:
    wants_mac = {"type": "two", "capabilities": {"mac": True}}

    chain.add(network("one", wants_mac), plugins.request(), {"mac": "02:00:00:00:00:01", "ips": []})

    assert "runtimeConfig" not in plugins.stdin(0)
    assert plugins.stdin(1)["runtimeConfig"] == {"mac": "02:00:00:00:00:01"}


def test_failed_add_is_undone_by_every_plugin(plugins: Plugins) -> None:
    """Plugins that ADD did not reach are called as well; the specification requires it."""
    plugins.make("two", ADD=refuse(11, "try later", details="in a minute"))

    with pytest.raises(CniError) as failed:
        chain.add(network(*THREE), plugins.request(), {})

    assert plugins.calls == ["one ADD", "two ADD", "three DEL", "two DEL", "one DEL"]
    assert failed.value.code == 11
    assert failed.value.msg == 'plugin type="two" name="mynet" failed (add): try later'
    assert failed.value.details == "in a minute"
    assert notes(failed.value) == []


def test_undo_gets_the_result_of_the_last_successful_plugin(plugins: Plugins) -> None:
    """Only from version 0.4.0 on, as for any DEL."""
    plugins.make("two", ADD=refuse(100, "no"))
    for version in ("0.3.1", "0.4.0"):
        with pytest.raises(CniError, match="no"):
            chain.add(network(*THREE, version=version), plugins.request(), {})

    expected = {"cniVersion": "0.4.0", "dns": {"domain": "one"}}
    assert [plugins.stdin(call).get("prevResult") for call in (2, 3, 4)] == [None] * 3
    assert [plugins.stdin(call).get("prevResult") for call in (7, 8, 9)] == [expected] * 3


def test_failed_undo_is_noted_and_does_not_stop_the_others(plugins: Plugins) -> None:
    plugins.make("two", DEL=refuse(999, "stuck"))
    plugins.make("three", ADD=refuse(7, "wrong"), DEL="exit 3")

    with pytest.raises(CniError, match="wrong") as failed:
        chain.add(network(*THREE), plugins.request(), {})

    assert plugins.calls[3:] == ["three DEL", "two DEL", "one DEL"]
    three, two = notes(failed.value)
    assert "while undoing" in three and "exit status 3" in three
    assert "while undoing" in two and "stuck" in two


def test_no_plugin_runs_if_one_is_missing(plugins: Plugins) -> None:
    """A missing plugin could not undo its part."""
    with pytest.raises(CniError, match='failed to find plugin "none"') as failed:
        chain.add(network("one", "none"), plugins.request(), {})

    assert plugins.calls == []
    assert failed.value.msg.startswith("10-mynet.conflist: plugins[1] (none): ")
    assert str(plugins.folder) in failed.value.msg


def test_no_plugin_runs_if_the_delegate_of_a_built_in_is_missing(plugins: Plugins) -> None:
    """An executable searches its delegate itself."""
    with pytest.raises(CniError, match='failed to find plugin "none"'):
        chain.add(network("one", {"type": "bridge", "ipam": {"type": "none"}}), plugins.request(), {})
    assert plugins.calls == []

    chain.add(network({"type": "one", "ipam": {"type": "none"}}), plugins.request(), {})
    assert plugins.calls == ["one ADD"]


def test_plugins_before_are_undone_if_a_plugin_is_removed_during_add(plugins: Plugins) -> None:
    plugins.make("one", ADD=f"rm {plugins.folder}/two; echo {{}}")

    with pytest.raises(CniError, match='failed to find plugin "two"') as failed:
        chain.add(network("one", "two"), plugins.request(), {})

    assert plugins.calls == ["one ADD", "one DEL"]
    (note,) = notes(failed.value)
    assert 'failed to find plugin "two"' in note


def test_add_runs_no_plugin_for_an_unsupported_version(plugins: Plugins) -> None:
    for version in ("1.0", "2.0.0", "nonsense"):
        with pytest.raises(CniError, match="incompatible CNI versions") as failed:
            chain.add(network("one", version=version), plugins.request(), {})
        assert failed.value.code == 1
    assert "one ADD" not in plugins.calls


def test_all_plugins_are_undone_if_a_result_cannot_be_passed_on(plugins: Plugins) -> None:
    """Version 0.2.0 cannot express a result without an address."""
    plugins.make("one", ADD=answer({"cniVersion": "0.2.0"}))

    with pytest.raises(CniError, match="no valid IP addresses"):
        chain.add(network("one", "two", version="0.2.0"), plugins.request(), {})
    assert plugins.calls == ["one ADD", "two DEL", "one DEL"]


@pytest.fixture
def alarm() -> Iterator[None]:
    def interrupt(signum: int, _frame: object) -> None:
        raise Interrupted(signum)

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_interrupted_add_is_undone_and_the_interrupt_is_raised(plugins: Plugins) -> None:
    plugins.make("two", ADD="sleep 0.1; kill -ALRM $PPID; sleep 60")

    with pytest.raises(Interrupted):
        chain.add(network(*THREE), plugins.request(), {})
    assert plugins.calls == ["one ADD", "two ADD", "three DEL", "two DEL", "one DEL"]


# DEL


def test_delete_runs_backward_with_the_final_result(plugins: Plugins) -> None:
    """At DEL every plugin gets the result of the whole chain, not the one that it got at ADD."""
    chain.delete(network(*THREE), plugins.request(), {}, RESULT)

    assert plugins.calls == ["three DEL", "two DEL", "one DEL"]
    assert [plugins.stdin(call)["prevResult"] for call in range(3)] == [RESULT.to_json("1.0.0")] * 3


@pytest.mark.parametrize("version", VERSIONS)
def test_delete_gets_the_result_from_0_4_0_on(plugins: Plugins, version: str) -> None:
    chain.delete(network("one", version=version), plugins.request(), {}, RESULT)

    assert ("prevResult" in plugins.stdin(0)) == (version >= "0.4.0")


def test_delete_without_a_result_has_no_such_key(plugins: Plugins) -> None:
    chain.delete(network("one"), plugins.request(), {}, None)

    assert "prevResult" not in plugins.stdin(0)


def test_delete_passes_the_capabilities_again(plugins: Plugins) -> None:
    """portmap and bandwidth remove only what their configuration names."""
    chain.delete(
        network({"type": "one", "capabilities": {"mac": True}}), plugins.request(), {"mac": "aa"}, None
    )

    assert plugins.stdin(0)["runtimeConfig"] == {"mac": "aa"}


def test_delete_continues_after_a_plugin_that_fails(plugins: Plugins) -> None:
    plugins.make("three", DEL=refuse(11, "busy"))
    plugins.make("two", DEL="kill -9 $$")

    with pytest.raises(CniError) as failed:
        chain.delete(network(*THREE), plugins.request(), {}, None)

    assert plugins.calls == ["three DEL", "two DEL", "one DEL"]
    assert failed.value.code == 11
    assert failed.value.msg == 'plugin type="three" name="mynet" failed (delete): busy'
    assert ["signal 9" in note for note in notes(failed.value)] == [True]


def test_delete_continues_after_a_missing_plugin(plugins: Plugins) -> None:
    with pytest.raises(CniError, match="failed to find plugin"):
        chain.delete(network("one", "none", "three"), plugins.request(), {}, None)

    assert plugins.calls == ["three DEL", "one DEL"]


@pytest.mark.parametrize("version", ["nonsense", "1.0", "9.9.9"])
def test_delete_runs_the_plugins_for_an_unsupported_version(plugins: Plugins, version: str) -> None:
    """The plugin, not the runtime, may reject it."""
    try:
        chain.delete(network("one", version=version), plugins.request(), {}, None)
    except CniError as error:
        assert "version" in str(error)
    assert plugins.calls == ["one DEL"]


# CHECK


def test_check_runs_forward_with_the_final_result_and_stops_at_an_error(plugins: Plugins) -> None:
    plugins.make("two", CHECK=refuse(100, "not what it was"))

    with pytest.raises(CniError, match="not what it was") as failed:
        chain.check(network(*THREE), plugins.request(), {}, RESULT)

    assert plugins.calls == ["one CHECK", "two CHECK"]
    assert failed.value.code == 100
    assert [plugins.stdin(call)["prevResult"] for call in (0, 1)] == [RESULT.to_json("1.0.0")] * 2


def test_check_can_be_switched_off(plugins: Plugins) -> None:
    chain.check(network("one", disableCheck="true"), plugins.request(), {}, RESULT)

    assert plugins.calls == []


@pytest.mark.parametrize("off", [True, False])
def test_check_of_an_older_version_is_an_error_even_if_switched_off(plugins: Plugins, off: bool) -> None:
    for version in ("", "0.2.0", "0.3.1"):
        with pytest.raises(CniError, match="CHECK") as failed:
            chain.check(network("one", version=version, disableCheck=off), plugins.request(), {}, RESULT)
        assert failed.value.code == 1
    assert plugins.calls == []


# Identity


@pytest.mark.parametrize(
    ("container_id", "ifname"), [("../x", "eth0"), ("c1\n", "eth0"), ("", "eth0"), ("c1", "a/b"), ("c1", "")]
)
def test_no_plugin_runs_for_a_malformed_identity(plugins: Plugins, container_id: str, ifname: str) -> None:
    request = plugins.request()
    request.container_id, request.ifname = container_id, ifname

    with pytest.raises(CniError):
        chain.add(network("one"), request, {})
    assert plugins.calls == []
