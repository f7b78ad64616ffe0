# SPDX-License-Identifier: Apache-2.0
"""cnihook metrics: print attachments, leases, failures and durations for Prometheus."""

import os
from collections.abc import Iterable

from cnihook import log
from cnihook.cli.shared import files, lease_usage, listing, quotas
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.listing import Row
from cnihook.fast.errors_text import printable
from cnihook.ipam import block
from cnihook.log import Log
from cnihook.nftables import quota
from cnihook.policy import change, denied, enforcement
from cnihook.runtime import networks, records
from cnihook.runtime.networks import Network
from cnihook.runtime.settings import Settings

DESCRIPTION = """\
Print metrics in Prometheus' text format, for the textfile collector of its node exporter:

  * * * * *  root  cnihook metrics --output DIR/cnihook.prom

DIR is the collector's folder, in Debian /var/lib/prometheus/node-exporter.

All metrics are gauges.  Those that are counted in logs may fall: the logs cover the containers that run, and
the last hundred that have ended.
"""

# Of the networks that several hosts share: names without "cnihook_cluster_".
_CLUSTER = {
    "agent_running": "1 if the agent of a network of several hosts runs, 0 if not.",
    "connected": "1 if the agent is connected to etcd, 0 if not.",
    "connection_timestamp_seconds": "When the connection to etcd was made or lost.",
    "revision": "The revision of etcd that the agent has seen last.",
    "hosts": "Hosts with a block, this one also.",
    "hosts_live": "Hosts whose agents run, this one also.",
    "hosts_unconfirmed": "Hosts whose blocks are not in etcd, since it lost its data.",
    "fenced": "1 if this host may not start containers on the network, 0 if it may.",
    "problems": "Problems that the agent reports; cnihook cluster status names them.",
    "kernel_timestamp_seconds": "When the agent last made the routes of the kernel as they should be.",
}

_Samples = Iterable["tuple[dict[str, str], float]"]


def parser() -> Parser:
    parser = Parser("metrics", DESCRIPTION)
    parser.add_argument(
        "--output", metavar="FILE", help="write them to this file, which is replaced atomically"
    )
    parser.add_conf_dir()
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    settings = Settings.from_environment(os.environ)
    text = collect(options.conf_dir or settings.conf_dir)
    if options.output:
        files.write(options.output, text)
    else:
        print(text, end="")
    return 0


def collect(conf_dir: str) -> str:
    listed = listing.load()
    present, problems = networks.load_folder(conf_dir)
    if not present and not problems:
        present = [networks.built_in()]
    by_name = {network.name: network for network in present}
    for one in listed:  # a network whose file is gone may still have containers
        if one.conf:
            by_name.setdefault(one.network, one.conf)

    states: dict[tuple[str, str], int] = {(name, listing.ATTACHED): 0 for name in by_name}
    for one in listed:
        states[one.network, one.state] = states.get((one.network, one.state), 0) + 1
    failures, durations = _logged()
    families = [
        _family(
            "cnihook_attachments",
            "Attachments on record.",
            (({"network": network, "state": state}, count) for (network, state), count in states.items()),
        ),
        *_leases(by_name.values()),
        _family(
            "cnihook_logged_failures",
            "Failures in the present logs, by what failed.",
            (({"operation": operation}, count) for operation, count in failures.items()),
        ),
        _family(
            "cnihook_attach_seconds",
            "Time from the start of a hook to the end of the attachment: the longest in the logs.",
            (({"network": network}, max(times)) for network, times in durations.items()),
        ),
        _family(
            "cnihook_attach_mean_seconds",
            "Time from the start of a hook to the end of the attachment: the mean in the logs.",
            (({"network": network}, sum(times) / len(times)) for network, times in durations.items()),
        ),
        *_quotas(listed),
        _family("cnihook_damaged_records", "Files that are not records.", [({}, len(records.damaged()))]),
        _family(
            "cnihook_configuration_problems",
            "Configuration files that cannot be used.",
            [({}, len(problems))],
        ),
        *_denied(),
        *_clusters(),
    ]
    return "".join(families)


def _denied() -> "list[str]":
    """Return what policies denied or recorded in the last 24 hours; nothing on a host without policies."""
    if not enforcement.exists():
        return []
    by_address = change.world().by_address
    packets: dict[tuple[str, str], int] = {}
    for one in denied.load():
        if endpoint := by_address.get(one.own):
            key = endpoint.container_id, one.direction
            packets[key] = packets.get(key, 0) + one.packets
    return [
        _family(
            "cnihook_denied_packets",
            "Packets of the last 24 hours that policies denied, or recorded in the mode audit.",
            (
                ({"container": container_id, "direction": direction}, count)
                for (container_id, direction), count in packets.items()
            ),
        )
    ]


def _clusters() -> "list[str]":
    """Return what this host's files say of its networks of several hosts; nothing on a host without them."""
    if not os.path.isdir(block.FOLDER):
        return []
    from cnihook.cluster import local, state  # few hosts are on such a network

    shared = {network: local.figures(network) for network in state.networks()}
    return [
        _family(
            f"cnihook_cluster_{name}",
            purpose,
            (
                ({"network": network}, numbers[name])
                for network, numbers in shared.items()
                if name in numbers
            ),
        )
        for name, purpose in _CLUSTER.items()
        if shared
    ]


def _leases(known: "Iterable[Network]") -> "list[str]":
    free, size = {}, {}
    for network in known:
        for one in lease_usage.of_network(network):
            key = network.name, one.name
            free[key] = max(one.size - one.leased, 0)
            size[key] = one.size

    def samples(counts: "dict[tuple[str, str], int]") -> _Samples:
        return (({"network": network, "range": name}, count) for (network, name), count in counts.items())

    return [
        _family("cnihook_leases_free", "Addresses of a range that host-local can lease.", samples(free)),
        _family("cnihook_leases", "All addresses of a range, leased or free.", samples(size)),
    ]


def _quotas(listed: "list[Row]") -> "list[str]":
    """Return the quotas, and save the counts: a firewall that is started again may flush them."""
    present = quotas.by_attachment(listed)
    if not present:
        return []
    quota.save_counts()
    labelled = [
        ({"container": container, "network": network, "ifname": ifname, "kind": kind}, one)
        for (network, container, ifname), limits in present.items()
        for kind, one in limits.items()
    ]
    return [
        _family(
            "cnihook_quota_used_bytes",
            "Bytes of a quota that a container has used.",
            ((labels, quotas.used(one)) for labels, one in labelled),
        ),
        _family(
            "cnihook_quota_bytes",
            "Bytes after which a container is cut off.",
            ((labels, limit) for labels, one in labelled if (limit := quotas.limit(one)) is not None),
        ),
    ]


def _logged() -> "tuple[dict[str, int], dict[str, list[float]]]":
    """Return failures by operation, and durations in seconds by network."""
    failures: dict[str, int] = {}
    durations: dict[str, list[float]] = {}
    for name in {*log.names(), *log.finished()}:
        try:
            for event in Log(name).events():
                kind, seconds = event.get("event"), event.get("seconds")
                operation, network = event.get("operation"), event.get("network")
                if kind == log.FAILED and isinstance(operation, str):
                    failures[operation] = failures.get(operation, 0) + 1
                elif kind == log.ATTACHED and isinstance(network, str) and isinstance(seconds, float):
                    durations.setdefault(network, []).append(seconds)
        except FileNotFoundError:
            continue  # its container ended just now
    return failures, durations


def _family(name: str, purpose: str, samples: _Samples) -> str:
    """Return a metric: https://prometheus.io/docs/instrumenting/exposition_formats/, "Text-based format"."""
    lines = [f"# HELP {name} {purpose}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{name}{{{inside}}} {value:.12g}" if inside else f"{name} {value:.12g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
