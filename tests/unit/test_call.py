# SPDX-License-Identifier: Apache-2.0
"""protocol.call: what a plugin receives with its call, except namespaces."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnihook.protocol.call import Invocation, requested_addresses
from cnihook.sdk import Call, CniError, NetConf
from cnihook.types.names import check_ifname

IDENTIFIERS = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,254}", fullmatch=True)


def is_ifname(name: str) -> bool:
    try:
        check_ifname(name)
    except CniError:
        return False
    return True


IFNAMES = st.text(min_size=1, max_size=15).filter(is_ifname)


def make(
    container_id: str = "c1",
    ifname: str = "eth0",
    cni_args: str = "",
    network: str = "mynet",
    keys: "dict[str, Any] | None" = None,
) -> Call:
    conf = NetConf({"cniVersion": "1.0.0", "name": network, "type": "x", **(keys or {})}, "10-a.conf")
    return Call("ADD", conf, Invocation(container_id, "/run/netns/c1", ifname, args=cni_args))


@pytest.mark.parametrize(
    ("args", "name", "value"),
    [
        ("", "IP", ""),
        ("IP=10.1.2.3", "IP", "10.1.2.3"),
        ("IP=10.1.2.3", "MAC", ""),
        ("MAC=02:00:00:00:00:01;IP=10.1.2.3,10.1.2.4", "IP", "10.1.2.3,10.1.2.4"),
        ("IP=;MAC=x", "IP", ""),
        (";;IP=10.1.2.3;", "IP", "10.1.2.3"),
        ("IP=a;IP=b", "IP", "b"),
        ("IgnoreUnknown=1;K8S_POD_NAME=web=1;IP=10.1.2.3", "IP", "10.1.2.3"),
        ("IgnoreUnknown=true;X=1", "IP", ""),
        ("X=1;IgnoreUnknown=True", "IP", ""),
    ],
)
def test_arguments(args: str, name: str, value: str) -> None:
    assert make(cni_args=args).arg(name) == value


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("IP", "IP"),
        ("=x", "=x"),
        ("IP=1;x", "x"),
        ("X=1", "X"),
        ("IgnoreUnknown=0;X=1", "X"),
        ("ip=10.1.2.3", "ip"),
    ],
)
def test_malformed_arguments_are_refused(args: str, words: str) -> None:
    with pytest.raises(CniError, match="CNI_ARGS") as refused:
        make(cni_args=args).arg("IP")

    assert refused.value.code == 4 and words in refused.value.msg


def test_keep_list_of_gc_may_be_absent_empty_or_null() -> None:
    """An absent key says nothing about the valid attachments.  Go writes null for an empty list."""
    assert make().valid_attachments() is None
    kept = [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "eth1"}]
    expected = {("c1", "eth0"), ("c2", "eth1")}
    for key in ("cni.dev/valid-attachments", "cni.dev/attachments", "CNI.dev/Valid-Attachments"):
        assert make(keys={key: None}).valid_attachments() == set()
        assert make(keys={key: []}).valid_attachments() == set()
        assert make(keys={key: kept}).valid_attachments() == expected
    empty: list[Any] = [[], None]
    for other in empty:
        both = {"cni.dev/attachments": other, "cni.dev/valid-attachments": kept}
        assert make(keys=both).valid_attachments() == expected


@pytest.mark.parametrize("kept", [{}, "c1", ["c1"], [{"containerID": 7, "ifname": "eth0"}], [None]])
def test_malformed_keep_list_is_refused(kept: Any) -> None:
    """The call fails before anything is collected."""
    with pytest.raises(CniError):
        make(keys={"cni.dev/valid-attachments": kept}).valid_attachments()


def test_prev_result_is_read_in_the_version_of_the_configuration() -> None:
    assert make().prev_result is None
    assert make(keys={"prevResult": None}).prev_result is None
    call = make(keys={"prevResult": {"ips": [{"address": "10.1.2.3/24"}]}})
    assert call.prev_result and call.prev_result is call.prev_result
    assert [str(ip.net) for ip in call.required_prev_result().ips] == ["10.1.2.3/24"]
    with pytest.raises(CniError, match="Required prevResult missing"):
        make().required_prev_result()


@pytest.mark.parametrize("prev", [[], "x", {"cniVersion": "9.0.0"}, {"ips": [{}]}])
def test_malformed_prev_result_is_refused(prev: Any) -> None:
    with pytest.raises(CniError, match="prevResult"):
        make(keys={"prevResult": prev}).required_prev_result()


@pytest.mark.parametrize("prev", [[], "x", {"cniVersion": "9.0.0"}, {"ips": [{}]}])
def test_del_ignores_a_malformed_prev_result(prev: Any) -> None:
    """The result may come from a damaged record; what can be released without it must be released."""
    conf = NetConf({"cniVersion": "1.0.0", "name": "mynet", "type": "x", "prevResult": prev})

    assert Call("DEL", conf, Invocation("c1", "", "eth0")).prev_result is None


def test_keys_that_the_runtime_adds_are_read() -> None:
    own = {"mac": "02:00:00:00:00:01"}
    call = make(keys={"runtimeConfig": own, "args": {"cni": {"ips": ["10.1.2.3"]}, "other": 1}})

    assert call.runtime_config.string("mac") == "02:00:00:00:00:01"
    assert call.cni_args.strings("ips") == ["10.1.2.3"]
    assert make().runtime_config.raw == make().cni_args.raw == {}


@given(IDENTIFIERS, IDENTIFIERS, IFNAMES)
def test_owner_fits_a_comment(network: str, container_id: str, ifname: str) -> None:
    """nftables keeps 127 bytes of a comment, the kernel 255 of an alias."""
    call = make(container_id, ifname, network=network)

    assert len(call.owner.encode()) <= 127
    assert call.owner.startswith(call.owner_prefix)
    assert call.owner.count(" ") == 2


def test_different_attachments_have_different_owners() -> None:
    """The parts cannot be mixed up, and long names with the same start stay different."""
    long = "x" * 200
    owners = [
        make(container_id, ifname, network=network).owner
        for network in ("a", "a-b", long + "1", long + "2")
        for container_id in ("b-c", "c", long + "1", long + "2")
        for ifname in ("eth0", "eth1")
    ]

    assert len(set(owners)) == len(owners)
    prefixes = [make(network=network).owner_prefix for network in ("a", "a-b", long + "1", long + "2")]
    for prefix in prefixes:
        assert sum(owner.startswith(prefix) for owner in owners) == 8


@pytest.mark.parametrize("ifname", ['a"b', '"'])
def test_owner_contains_no_quotes(ifname: str) -> None:
    """The owner is quoted in the text for nft."""
    assert '"' not in make(ifname=ifname).owner


def test_requested_addresses() -> None:
    requests = requested_addresses(["10.1.2.3", "10.1.2.4/24", "2001:db8::1"], "ips")

    assert [(str(address), net and str(net)) for address, net in requests] == [
        ("10.1.2.3", None),
        ("10.1.2.4", "10.1.2.4/24"),
        ("2001:db8::1", None),
    ]


@pytest.mark.parametrize(
    "text", ["", "x", "10.1.2", "10.1.2.3/33", "10.1.2.3/", " 10.1.2.3", 7, None, ["/"], {}]
)
def test_wrong_requested_address_is_refused_with_its_place(text: Any) -> None:
    with pytest.raises(CniError) as refused:
        requested_addresses(["10.1.2.3", text], "runtimeConfig: ips")

    assert refused.value.msg.startswith("runtimeConfig: ips: ") and repr(text) in refused.value.msg


def test_owner_is_the_same_in_each_process() -> None:
    """A DEL in another process has to find what ADD set up."""
    random.seed(1)
    name = "".join(random.choice("abc") for _ in range(200))

    assert make(name).owner == make(name).owner
    assert make(name).owner_of(name, "eth0") == make(name).owner
