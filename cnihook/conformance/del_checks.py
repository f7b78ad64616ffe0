# SPDX-License-Identifier: Apache-2.0
"""Checks of DEL in every situation."""

from cnihook.conformance import host
from cnihook.conformance.case import Case
from cnihook.conformance.check import CheckFailed
from cnihook.conformance.check import plugin_check as check
from cnihook.types import versions

_DEL = "2 DEL"


@check("quiet", "DEL, CHECK, GC and STATUS print nothing when they succeed", "2 CNI operations", must=False)
def quiet(case: Case) -> None:
    container = case.added()
    for command, since in {**versions.SINCE, "DEL": "0.1.0"}.items():
        if not versions.at_least(case.version, since):
            continue
        if command in ("GC", "STATUS"):
            answer = case.call(command, case.conf(container, chained=False))
        else:
            answer = case.call(command, case.later(container), container)
        if answer.status == 0 and answer.stdout.strip():
            raise CheckFailed(f"{command} prints on stdout")


@check("del", "after DEL the interface is gone from the container", _DEL, kinds=("interface",), must=False)
def delete(case: Case) -> None:
    container = case.added()
    case.delete(container)
    if case.created(container):
        raise CheckFailed(f"{container.ifname} is still in the container")


@check(
    "del-host",
    "after DEL no interface of the result is left on the host, except a bridge",
    _DEL,
    kinds=("interface", "chained"),
    must=False,
)
def delete_host(case: Case) -> None:
    container = case.container()
    before = host.links()
    case.add(container)
    case.delete(container)
    with host.host() as rtnl:
        left = [link.name for link in rtnl.links() if link.name not in before and link.kind != "bridge"]
    if left:
        raise CheckFailed(f"left on the host: {', '.join(left)}")


@check("del-twice", "a second DEL succeeds", _DEL)
def delete_twice(case: Case) -> None:
    container = case.added()
    case.delete(container, "the first DEL")
    case.delete(container, "the second DEL")


@check("del-empty-netns", "DEL succeeds with CNI_NETNS empty, or not set", _DEL, must=False)
def delete_empty_netns(case: Case) -> None:
    container = case.added()
    case.delete(container, "DEL with CNI_NETNS empty", CNI_NETNS="")
    case.delete(container, "DEL without CNI_NETNS", CNI_NETNS=None)


@check("del-netns-gone", "DEL succeeds when the namespace is gone", _DEL, must=False)
def delete_netns_gone(case: Case) -> None:
    container = case.added()
    container.destroy()
    case.delete(container, "DEL with the namespace gone")
    case.delete(container, "a second DEL with the namespace gone")


@check("del-link-gone", "DEL succeeds when the interface is gone", _DEL, kinds=("interface", "chained"))
def delete_link_gone(case: Case) -> None:
    container = case.added()
    with container.inside() as rtnl:
        rtnl.delete_link(rtnl.link(container.ifname))
    case.delete(container, f"DEL with {container.ifname} gone")


@check(
    "del-host-links-gone",
    "DEL succeeds when the host's links are gone: the plugin's own, a bridge, a parent link",
    _DEL,
    kinds=("interface", "chained"),
    must=False,
)
def delete_host_links_gone(case: Case) -> None:
    container = case.added()
    with host.host() as rtnl:
        for name in {link.name for link in rtnl.links()} - {"lo"}:
            if rtnl.find_link(name):  # the kernel deletes a veth's peer with it
                rtnl.delete_link_named(name)
    case.delete(container, "DEL with nothing but lo on the host")


@check("del-no-prev-result", "DEL succeeds without prevResult", _DEL, must=False)
def delete_no_prev_result(case: Case) -> None:
    container = case.added()
    case.delete(container, "DEL without prevResult", conf=case.conf(container, chained=False))


@check("del-never-added", "DEL succeeds for a container that was never ADDed", _DEL, must=False)
def delete_never_added(case: Case) -> None:
    container = case.container()
    conf = case.conf(container, chained=False)
    case.delete(container, "DEL without ADD", conf=conf)
    case.delete(container, "DEL without ADD or namespace", conf=conf, CNI_NETNS="")


@check("del-failed-add", "DEL succeeds after an ADD that failed", "3 Lifecycle & Ordering", must=False)
def delete_failed_add(case: Case) -> None:
    case.require()
    container = case.container()
    answer = case.call("ADD", case.conf(container), container, CNI_NETNS="/run/netns/nowhere")
    conf = case.conf(container, chained=False)
    what = "failed" if answer.status else "was for another namespace"
    case.delete(container, f"DEL with the true namespace after an ADD that {what}", conf=conf)
    case.delete(container, f"DEL after an ADD that {what}", conf=conf, CNI_NETNS="/run/netns/nowhere")


@check("del-bad-prev-result", "DEL succeeds when prevResult makes no sense", _DEL, must=False)
def delete_bad_prev_result(case: Case) -> None:
    container = case.added()
    case.need_operation("CHECK")
    bad = {"cniVersion": case.version, "ips": [{"address": "x"}]}
    case.delete(container, conf=case.later(container, prevResult=bad), what="DEL with a bad prevResult")


@check("del-others", "DEL of one container leaves another container's interface and addresses", _DEL)
def delete_others(case: Case) -> None:
    one, other = case.added(), case.added()
    before = other.addresses(case.ifname(other))
    case.delete(one)
    if other.addresses(case.ifname(other)) != before:
        raise CheckFailed(f"DEL of {one.id} has changed {case.ifname(other)} of {other.id}")
    if versions.at_least(case.version, "0.4.0"):
        answer = case.call("CHECK", case.later(other), other)
        answer.expect_success(f"CHECK of {other.id} after DEL of {one.id}")


@check(
    "add-after-del",
    "after DEL, ADD works again for the same container",
    _DEL,
    kinds=("interface", "loopback", "ipam"),
    must=False,
)
def add_after_delete(case: Case) -> None:
    container = case.added()
    case.delete(container)
    case.add(container)


@check(
    "del-undoes",
    "DEL undoes the plugin's own changes, so that ADD works again, and leaves the interface",
    _DEL,
    kinds=("chained",),
    must=False,
)
def delete_undoes(case: Case) -> None:
    container = case.added()
    case.delete(container)
    if not case.created(container):
        raise CheckFailed(f"DEL has removed {container.ifname}, which another plugin made")
    case.add(container)
