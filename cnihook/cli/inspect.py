# SPDX-License-Identifier: Apache-2.0
"""cnihook inspect: show a container's records beside the state of the kernel."""

import base64
import json

from cnihook.cli.shared import arguments, containers, limits, listing, optional, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.differences import differences
from cnihook.cli.shared.kernel_view import View, nft_elements
from cnihook.cli.shared.listing import Row
from cnihook.cli.shared.process_view import ProcessView
from cnihook.fast.errors_text import message_with_hint, message_with_notes
from cnihook.linux import sysctl
from cnihook.linux.netns import NetNS
from cnihook.protocol import invoke
from cnihook.protocol.call import args_text
from cnihook.runtime import attachment
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

DESCRIPTION = """\
Show the records of a container's networks, and beside them the state of the kernel: links, addresses,
routes, neighbours, queueing disciplines, elements of `table inet cnihook`, and the settings that tuning
made.  A line that begins with `!` is a difference between the two.  Then show the processes in the
container's network namespace, and the sockets on which they listen.

The kernel is read through pyroute2 and psutil, not by the code that sets networks up.
"""

EPILOG = """\
keys of --json:
  container    its ID
  name         its name in its engine, or of its pod; null for none
  attachments  for each network the keys of `cnihook ps --json`, and record,
               kernel, differences
  processes    pid, name and command of each process; null if not read
  listening    protocol (tcp, udp), address, port, pid and name of each socket
               on which a process listens; null if not read
"""

_ROOM = 20  # lines of a list that can be long


def parser() -> Parser:
    parser = Parser("inspect", DESCRIPTION, EPILOG)
    parser.add_container()
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    optional.package("pyroute2", "python3-pyroute2")  # fail before any work
    listed = listing.of_container(options.id)
    host = View("/proc/thread-self/ns/net")
    inside: dict[str, View | str] = {}
    reports = [_report(one, host, inside) for one in listed]
    view, problem = _processes(next(iter(inside), ""))
    if options.json:
        arguments.print_json(
            {
                "container": listed[0].container,
                "name": listed[0].name or None,
                "attachments": reports,
                "processes": view.processes if view else None,
                "listening": view.listening if view else None,
            }
        )
    else:
        _show(reports, view, problem)
    return 0


def _processes(path: str) -> "tuple[ProcessView | None, str]":
    """Return the processes of the namespace, or the reason why they cannot be read."""
    try:
        return (ProcessView(path) if path else None), ""
    except (OSError, CniError) as error:
        return None, message_with_hint(error)


def _report(one: Row, host: View, inside: "dict[str, View | str]") -> "Json":
    path = attachment.live_netns_path(one.record)
    if path and path not in inside:
        try:
            inside[path] = View(path)
        except OSError as error:
            inside[path] = f"its namespace cannot be read: {message_with_notes(error)}"
    view = inside.get(path, "its namespace is gone")
    kernel: Json = {"host": {name: host.of(name) for name in _on_host(one)}}
    problem = ""
    if isinstance(view, View):
        kernel |= view.of(one.ifname)
        for seen in kernel["host"].values():  # a bridge has the neighbours of all its containers
            seen["neighbours"] = [each for each in seen["neighbours"] if _is_of(each, kernel["link"])]
        kernel["sysctls"] = _sysctls(one, path)
    else:
        problem = view
    try:
        kernel["nft"] = nft_elements(one.network, one.container, one.ifname)
    except OSError as error:
        kernel["nft"] = None
        problem = problem or message_with_notes(error)
    problems = [problem] if problem else []
    return {
        **_record(one),
        "kernel": kernel,
        "differences": problems + differences(one, kernel, bool(problem)),
    }


def _record(one: Row) -> "Json":
    record = one.record
    return {
        **one.to_json(),
        "record": {
            "file": record.path,
            "config": one.conf.raw if one.conf else base64.b64encode(record.config).decode(),
            "cni_args": args_text(record.cni_args),
            "capability_args": record.capability_args,
            "policy": record.extra.get("policy"),
            "limits": limits.of_record(record),
            "plugin_path": record.plugin_dirs,
            "sequence": record.sequence,
            "holder": record.process.to_json() if record.process else None,
            "result": record.result,
            "revision": record.extra.get("revision", 0),
            **{key: record.extra.get(key) for key in ("changed", "pending", "until", "mdns")},
        },
    }


def _is_of(neighbour: "Json", link: "Json | None") -> bool:
    return link is not None and neighbour["mac"] == link["mac"]


def _on_host(one: Row) -> "list[str]":
    return [interface.name for interface in one.result.interfaces if not interface.sandbox]


def _sysctls(one: Row, netns: str) -> "list[Json]":
    """Return the settings that a plugin keeps a note of, with their present values."""
    paths = {
        invoke.load(plugin["type"]).settings_file(NetConf(plugin), one.container, one.ifname)
        for plugin in (one.conf.plugins if one.conf else [])
        if invoke.traits(plugin["type"]).keeps_sysctls
    }
    sysctls: list[Json] = []
    namespace = NetNS.open(netns)
    try:
        for path in paths:
            try:
                with open(path) as file:
                    settings = json.load(file).get("sysctl", {})
                with namespace.entered():
                    sysctls += [
                        {"name": name, "set": setting["is"], "now": _now(name)}
                        for name, setting in settings.items()
                    ]
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                continue  # the reference's tuning keeps no note of settings, or it is damaged
    finally:
        namespace.close()
    return sysctls


def _now(name: str) -> "str | None":
    try:
        return sysctl.read(name)
    except OSError:
        return None


# Showing


def _show(reports: "list[Json]", view: "ProcessView | None", problem: str) -> None:
    style = terminal.style()
    width = terminal.width()

    def line(text: str, *colours: str) -> None:
        print(style(terminal.cut(terminal.printable(text), width), *colours))

    def show_parts(parts: "list[tuple[str, list[str]]]") -> None:
        for part, lines in parts:
            if lines:
                line(f"  {part}", "cyan")
                for text in lines:
                    line(f"    {text}")

    for number, report in enumerate(reports):
        if number:
            print()
        line(f"{_title(report)}  {report['network']}  {report['ifname']}", "bold")
        for text in report["differences"]:
            line(f"! {text}", "red")
        show_parts(_parts(report))
    if view or problem:
        print()
        line(f"{_title(reports[0])}  processes", "bold")
        show_parts(_process_parts(view) if view else [("processes", [f"not looked at: {problem}"])])


def _title(report: "Json") -> str:
    container = str(report["container"])
    return f"{report['name']} {containers.short(container)}" if report["name"] else container


def _parts(report: "Json") -> "list[tuple[str, list[str]]]":
    record, kernel = report["record"], report["kernel"]
    result = record["result"] or {}
    process = f"process {report['pid']}" if report["pid"] else "no process is named"
    on_record = [
        f"{report['state']}, {listing.span(report['age'])}, {process}, "
        + ("alive" if report["alive"] else "gone"),
        f"namespace {report['netns'] or 'without a path'}",
        f"file {record['file']}",
        *(f"address {address}" for address in report["addresses"]),
        *(f"route {_route(route)}" for route in result.get("routes") or () if isinstance(route, dict)),
        *(f"port {port}" for port in report["ports"]),
        *record["limits"],
        *_multicast(record),
        *_changes(record),
        *([f"behind its network's file: `cnihook diff {report['network']}`"] if report["behind"] else []),
        *([f"CNI_ARGS {record['cni_args']}"] if record["cni_args"] else []),
        *([f"plugins from {':'.join(record['plugin_path'])} first"] if record["plugin_path"] else []),
    ]
    parts = [("on record", on_record), ("in the container", _interface(kernel))]
    parts.append(("settings", [f"{one['name']} = {one['now']}" for one in kernel.get("sysctls") or ()]))
    for name, view in kernel["host"].items():
        parts.append((f"on the host, {name}", _interface(view, without_routes=True)))
    if kernel["nft"] is None:
        parts.append(("nftables", ["not looked at: there is no nft (`apt-get install nftables`)"]))
    else:
        parts.append(("nftables", [_element(one) for one in kernel["nft"]]))
    return parts


def _multicast(record: "Json") -> "list[str]":
    """Return the line about multicast DNS, if the container requests it."""
    if not record["mdns"]:
        return []
    uplinks = ", ".join(record["mdns"]["uplinks"]) or "the interfaces with a default route"
    return [f"multicast DNS by {uplinks}"]


def _changes(record: "Json") -> "list[str]":
    """Return lines about changes that were made while the container ran."""
    lines = [f"revision {record['revision']}, changed {record['changed']}"] if record["changed"] else []
    if record["until"]:
        lines.append(f"the last change is undone at {record['until']}")
    if record["pending"]:
        lines.append("a change is under way, or was interrupted")
    return lines


def _interface(view: "Json", without_routes: bool = False) -> "list[str]":
    link = view.get("link")
    if not link:
        return []
    words = [link["kind"] or "", link["mac"] or "", f"mtu {link['mtu']}", "up" if link["up"] else "down"]
    if link["master"]:
        words.append(f"on {link['master']}")
    lines = [f"link {link['name']} {' '.join(filter(None, words))}"]
    lines += [f"address {one['address']}" for one in view["addresses"] if one["scope"] != "link"]
    if not without_routes:
        lines += [f"route {_route(one)}" for one in view["routes"] if not one["dst"].startswith("fe80:")]
    lines += [f"neighbour {one['address']} {one['mac'] or ''} {one['state']}" for one in view["neighbours"]]
    lines += [f"qdisc {one['kind']}" for one in view["qdiscs"] if one["kind"] != "noqueue"]
    return lines


def _route(route: "Json") -> str:
    via = f" via {route['gw']}" if route.get("gw") else ""
    table = f" table {route['table']}" if route.get("table") not in (None, 254) else ""
    return f"{route.get('dst')}{via}{table}"


def _element(one: "Json") -> str:
    return f"{one['in']}: {one['key']}" + (f" : {one['to']}" if "to" in one else "")


def _process_parts(view: ProcessView) -> "list[tuple[str, list[str]]]":
    return [
        ("in its namespace", _some([_process(one) for one in view.processes])),
        ("listening", _some([_listener(one) for one in view.listening])),
    ]


def _some(lines: "list[str]") -> "list[str]":
    more = len(lines) - _ROOM
    return [*lines[:_ROOM], f"and {more} more (--json lists all)"] if more > 0 else lines


def _process(one: "Json") -> str:
    return f"{one['pid']} {one['name'] or ''}" + (f": {one['command']}" if one["command"] else "")


def _listener(one: "Json") -> str:
    address = f"[{one['address']}]" if ":" in one["address"] else one["address"]
    process = f"{one['pid']} ({one['name']})" if one["pid"] else "a process that /proc does not show"
    return f"{one['protocol']} {address}:{one['port']} by {process}"
