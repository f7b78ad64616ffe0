# SPDX-License-Identifier: Apache-2.0
"""
Names and name servers of a container that runs: its aliases, further hosts, and its resolv.conf.

After a change, the record has what cnihook has set up, under the key `names`:

    {"aliases": ["db"],                         on this network; the entry in names.entries has them, too
     "hosts": ["10.0.0.7 mirror"],              further lines of its /etc/hosts
     "dns": {"nameservers": ["10.0.0.53"]},     requested; what is absent is as its networks or the host say
     "file": "nameserver 10.0.0.1\\n"}           its resolv.conf before, if cnihook did not write it
"""

from cnihook.fast.address import is_address
from cnihook.fast.errors_text import message
from cnihook.log import Log, notice
from cnihook.names import container_dns, host_servers, hosts, resolv_conf
from cnihook.names.entries import Entry
from cnihook.request import reserved
from cnihook.request.options import OPTIONS
from cnihook.request.request import ContainerRequest, NetworkRequest
from cnihook.runtime import attachment, records
from cnihook.runtime.networks import Network
from cnihook.runtime.pending import Input, network_of
from cnihook.runtime.records import Record
from cnihook.types import Value
from cnihook.types.config import LenientConf
from cnihook.types.errors import INVALID_CONFIG, CniError
from cnihook.types.result import DNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from cnihook.runtime.update import Edit

    Own: TypeAlias = dict[str, Any]  # the key `names` of a record


_LONGEST = 1 << 16  # characters of a file that is kept in the record
# The most values of each kind, as at the start of a container.
_MOST = {
    "nameservers": OPTIONS["dns"].most,
    "search": OPTIONS["dns-search"].most,
    "options": OPTIONS["dns-option"].most,
    "hosts": OPTIONS["add-host"].most,
}


class Names(Value):
    """The requested changes.

    `dns`: new values by the key of a result's `dns`; an empty list: not requested.  `hosts_add`: (name,
    address), `hosts_rm`: names.
    """

    __slots__ = ("aliases_add", "aliases_rm", "dns", "hosts_add", "hosts_rm")

    def __init__(self) -> None:
        self.aliases_add: list[str] = []
        self.aliases_rm: list[str] = []
        self.hosts_add: list[tuple[str, str]] = []
        self.hosts_rm: list[str] = []
        self.dns: dict[str, list[str]] = {}


# What there is


def fill(attachments: "list[Record]", names: Names, lists: "dict[str, str]") -> None:
    """Add to the records, in memory, the names and name servers that the change starts from.

    `lists`: the requested lists of connections.
    """
    real = [record for record in attachments if not attachment.network_of(record).is_loopback]
    has_names = any(map(_lists_names, (lists, *(_policy(record.extra) for record in real))))
    servers: "Own" = {}
    if real and (names.dns or (lists and has_names)):
        servers = _servers(real[0], is_required=bool(names.dns))
    for record in real:
        own = dict(_names(record.extra))
        entry = Entry.read(record.network, record.container_id)
        if names.aliases_add or names.aliases_rm:
            own["aliases"] = entry.aliases if entry else []
        if names.hosts_add or names.hosts_rm:
            own["hosts"] = entry.hosts if entry else []
        own = {**servers, **own}
        if own:
            record.extra = {**record.extra, "names": own}


def _names(extra: "dict[str, Any]") -> "Own":
    own = extra.get("names")
    return own if isinstance(own, dict) else {}


def _policy(extra: "dict[str, Any]") -> "dict[str, Any]":
    own = extra.get("policy")
    return own if isinstance(own, dict) else {}


def _lists_names(lists: "dict[str, Any]") -> bool:
    """Return True if a list has names, which the container looks up at the resolver."""
    return "name:" in str(lists.get("egress") or "")


def _of_networks(container_id: str) -> "list[DNS]":
    """Return the DNS settings of all networks of a container."""
    results = [
        attachment.result_of(network_of(Input.of(record), record), record)
        for record in records.of_container(container_id)
    ]
    return [result.dns for result in results if result]


def _servers(record: Record, *, is_required: bool) -> "Own":
    """Return `dns` and `file` of a container.

    Raises CniError if the file cannot be written and `is_required`.
    """
    pid = host_servers.process_of(record)
    try:
        if not pid:
            raise FileNotFoundError(2, "it is the host's, as of a command of priv-net-run")
        file = host_servers.file_of(record.container_id, pid)
        file.pin()  # it must be possible to write it, and to undo that
        text = file.read() or ""
    except OSError as error:
        if is_required:
            raise CniError(INVALID_CONFIG, f"its /etc/resolv.conf: {message(error)}") from None
        return {}
    if not text.startswith(resolv_conf.MARK):
        return {"dns": {}, "file": text} if len(text) <= _LONGEST else {"dns": {}}
    if not text.startswith(f"{resolv_conf.MARK}{resolv_conf.AS_ASKED}\n"):
        return {"dns": {}}
    requested = resolv_conf.difference(text, _of_networks(record.container_id))
    if resolv_conf.requested(record.container_id, DNS(), [record]):  # the servers are the resolver's
        requested.nameservers = list(_policy(record.extra).get("servers") or ())
    return {"dns": requested.to_json()}


def servers_in_use(attachments: "list[Record]") -> "list[str]":
    """Return the servers in a container's resolv.conf."""
    text, _is_link = (
        host_servers.read(host_servers.process_of(attachments[0])) if attachments else ("", False)
    )
    return resolv_conf.servers_of(text or "")


def own_servers(attachments: "list[Record]") -> "list[str]":
    """Return the servers that are requested, or of a container's networks; none if it uses the host's."""
    if not attachments:
        return []
    requested = _names(attachments[0].extra).get("dns") or {}
    return _servers_of(requested, _of_networks(attachments[0].container_id))


def _servers_of(requested: "dict[str, Any]", networks: "list[DNS]") -> "list[str]":
    servers = [server for each in networks for server in each.nameservers]
    return list(filter(is_address, LenientConf(requested).strings("nameservers") or servers))


# The edits


def edits(
    attachments: "list[Record]", networks: "dict[str, Network]", names: Names
) -> "dict[str, list[Edit]]":
    """Return the edits of attachments by the paths of their records.

    Raises CniError for an alias that a container must not have.
    """
    edits_of: dict[str, list[Edit]] = {record.path: [] for record in attachments}
    for record in attachments:
        if names.aliases_add or names.aliases_rm:
            edits_of[record.path].append(_edit_of_aliases(record, networks[record.path], names))
        for key, settings in names.dns.items():
            _refuse_many(key, settings)
        if names.dns:
            edits_of[record.path].append(_edit_of_dns(record, names.dns))
    if names.hosts_add or names.hosts_rm:
        holder = _holder(attachments)
        edits_of[holder.path].append(_edit_of_hosts(_with_addresses(names.hosts_add, attachments), names))
    return edits_of


def _edit_of_aliases(record: Record, network: Network, names: Names) -> "Edit":
    removed = {name.lower() for name in names.aliases_rm}

    def edit(old: Input) -> Input:
        own = dict(_names(old.own))
        aliases = [name for name in own.get("aliases") or () if name.lower() not in removed]
        present = {name.lower() for name in aliases}
        aliases += [name for name in dict.fromkeys(names.aliases_add) if name.lower() not in present]
        own["aliases"] = aliases
        args = dict(old.capability_args)
        if "aliases" in network.capabilities:
            args["aliases"] = aliases
            if not aliases:
                del args["aliases"]
        return Input(old.config, args, {**old.own, "names": own})

    requested = NetworkRequest(record.network)
    requested.aliases = _names(edit(Input.of(record)).own)["aliases"]
    if names.aliases_add:
        reserved.check(ContainerRequest([requested]), [network])
    return edit


def _edit_of_dns(record: Record, dns: "dict[str, list[str]]") -> "Edit":
    of_networks = _of_networks(record.container_id)

    def edit(old: Input) -> Input:
        own = dict(_names(old.own))
        settings = {**LenientConf(own).object("dns").raw, **dns}
        own["dns"] = {key: value for key, value in settings.items() if value}
        new = {**old.own, "names": own}
        policy = _policy(old.own)
        if "dns" in policy:  # what the peer `dns` of its lists means
            servers = _servers_of(own["dns"], of_networks)
            policy = {key: value for key, value in policy.items() if key != "servers"}
            policy |= {"servers": servers} if servers else {}
            new["policy"] = {**policy, "dns": servers or resolv_conf.host_servers()}
        return Input(old.config, old.capability_args, new)

    return edit


def _edit_of_hosts(added: "list[tuple[str, str]]", names: Names) -> "Edit":
    removed = {name.lower() for name in names.hosts_rm}

    def edit(old: Input) -> Input:
        own = dict(_names(old.own))
        lines = [line for line in own.get("hosts") or () if line.partition(" ")[2].lower() not in removed]
        lines += [line for name, address in added if (line := f"{address} {name}") not in lines]
        _refuse_many("hosts", lines)
        own["hosts"] = lines
        return Input(old.config, old.capability_args, {**old.own, "names": own})

    return edit


def _refuse_many(kind: str, lines: "list[str]") -> None:
    if len(lines) > _MOST[kind]:
        raise CniError(INVALID_CONFIG, f"{len(lines)} {kind}: a container may have {_MOST[kind]} at most")


def _holder(attachments: "list[Record]") -> Record:
    """Return the attachment whose entry has the further hosts, or is to get them."""
    with_file = []
    for record in attachments:
        entry = Entry.read(record.network, record.container_id)
        if entry and entry.hosts:
            return record
        with_file += [record] if entry and entry.file else []
    if not with_file:
        raise CniError(INVALID_CONFIG, "its /etc/hosts is not visible on the host, so no host can be added")
    return with_file[0]


def _with_addresses(added: "list[tuple[str, str]]", attachments: "list[Record]") -> "list[tuple[str, str]]":
    """Return the hosts with the address of the first gateway for `host-gateway`."""
    results = [attachment.result_of(attachment.network_of(record), record) for record in attachments]
    gateways = [str(ip.gateway) for result in results if result for ip in result.ips if ip.gateway]
    for name, address in added:
        if address == "host-gateway" and not gateways:
            raise CniError(INVALID_CONFIG, f"host {name}: none of its networks has a gateway")
    return [(name, gateways[0] if address == "host-gateway" else address) for name, address in added]


# The change


def put_in_force(record: Record, before: "Own", after: "Own", log: Log) -> None:
    """Write the names into the hosts files, and the name servers into resolv.conf, as they are in `after`.

    The servers are those of the resolver if the container's policies list names.
    """
    if before.get("aliases") != after.get("aliases"):
        entry = Entry.read(record.network, record.container_id) or _new_entry(record)
        hosts.set_aliases(entry, list(after.get("aliases") or ()), log)
    if before.get("hosts") != after.get("hosts"):
        hosts.set_hosts(record.network, record.container_id, list(after.get("hosts") or ()))
    if "dns" in after:
        _write_servers(record, after, log)
    elif _lists_names(_policy(record.extra)):
        servers = " or ".join(resolv_conf.requested(record.container_id, DNS(), [record]).nameservers)
        notice(
            f"its /etc/resolv.conf is not written, so it has to ask {servers} for the names of its list; "
            "start it again with the list"
        )


def _new_entry(record: Record) -> Entry:
    result = attachment.result_of(attachment.network_of(record), record)
    addresses = [str(ip.net.address) for ip in result.ips] if result else []
    return Entry(record.network, record.container_id, record.ifname, addresses, [], [], None)


def _write_servers(record: Record, own: "Own", log: Log) -> None:
    pid = host_servers.process_of(record)
    if not pid:
        return
    file = host_servers.file_of(record.container_id, pid)
    settings = DNS.from_json(LenientConf(own).object("dns"))
    settings = resolv_conf.requested(record.container_id, settings, [record])
    old = file.read()
    if settings or "file" not in own:
        container_dns.set_resolv_conf(file, _of_networks(record.container_id), settings, log)
    elif old != own["file"]:
        file.write(str(own["file"]))
