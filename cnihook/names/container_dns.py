# SPDX-License-Identifier: Apache-2.0
"""The names that containers have for each other: resolv.conf, hosts and hostname of a container.

A failure here does not prevent the start of a container: it is an event in its log.
"""

from cnihook.fast.errors_text import message
from cnihook.linux.netns import NetNS
from cnihook.log import Log
from cnihook.names import hosts, loopback_names, resolv_conf
from cnihook.names.entries import Entry
from cnihook.names.etc import ContainerEtc
from cnihook.names.rootfs_file import File
from cnihook.oci.bundle import OWN, Bundle
from cnihook.request import reserved, values
from cnihook.request.request import ContainerRequest
from cnihook.runtime import networks
from cnihook.runtime.records import Record
from cnihook.types.errors import CniError
from cnihook.types.result import DNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.runtime.addition import Attachment

    Attached = list[Attachment]


def configure(
    container_id: str,
    pid: int,
    config: Bundle,
    wanted: ContainerRequest,
    attached: "Attached",
    log: Log,
    earlier: "list[DNS] | None" = None,
    *,
    runs: bool = False,
) -> None:
    """Write the resolv.conf, hosts and hostname of a container, and its names into other hosts files.

    `earlier`: the DNS settings of networks that it was attached to before; None for a new container.  A
    container that `runs` may have changed what is at the paths of its files.
    """
    try:
        etc = ContainerEtc(container_id, pid, config, runs=runs)
    except OSError as error:
        log.event(f"its /etc/hosts, resolv.conf and hostname are not set: {message(error)}")
        return
    of_networks = [*(earlier or ()), *(one.result.dns for one in attached)]
    if attached or wanted.dns:
        try:
            settings = resolv_conf.requested(container_id, wanted.dns, [one.record for one in attached])
            file = etc.file("resolv.conf")
            text = set_resolv_conf(file, of_networks, settings, log, is_new=earlier is None)
            if earlier is None:
                report_unreachable(text, pid, attached, log)
        except OSError as error:
            log.event(f"name servers are not in its /etc/resolv.conf: {message(error)}")
    if attached or wanted.hosts:
        _set_hosts(container_id, etc, config, wanted, attached, log)
    if wanted.hostname:
        _set_hostname(pid, etc, config, wanted.hostname, log)


def set_resolv_conf(file: File, said: "list[DNS]", asked: DNS, log: Log, *, is_new: bool = True) -> str:
    """Write resolv.conf with the requested settings `asked`, else with those of the networks, `said`.

    Without either, those of the host are written if the file is empty or cnihook wrote it.  A container that
    is not new keeps the settings that were requested at its start.  Returns the text that the file has
    then.  Raises OSError if the file cannot be used.
    """
    old = file.read() or ""
    is_following = not any(dns.nameservers for dns in (asked, *said))
    if asked:
        source, text = resolv_conf.AS_ASKED, resolv_conf.text(said, asked)
    elif old.startswith(f"{resolv_conf.MARK}{resolv_conf.AS_ASKED}\n") and not is_new:
        return old
    elif any(said):
        source, text = resolv_conf.OF_NETWORKS, resolv_conf.text(said)
    elif old.strip() and not resolv_conf.is_unchanged(old):
        return old
    else:
        source, text = resolv_conf.OF_HOST, resolv_conf.host_text()
    if not text:
        log.event("it gets no name servers: only the host itself can reach those of the host")
        return old
    written = resolv_conf.marked(source, text, is_following=is_following)
    file.write(written)
    log.event(f"name servers {source} are in its /etc/resolv.conf")
    return written


def report_unreachable(text: str, pid: int, attached: "Attached", log: Log) -> None:
    """Log it if a new container has no route to any server of its resolv.conf, which has this text."""
    servers = resolv_conf.servers_of(text)
    # A server on the loopback may be a program of the container, or of its engine.
    if not resolv_conf.are_unreachable(servers, DNS(servers), [one.result for one in attached]):
        return
    from cnihook.names import dns_reach  # most networks have a default route, and the kernel is not asked

    namespace = NetNS.find(f"/proc/{pid}/ns/net")
    if not namespace:
        return  # the container has ended
    try:
        if not dns_reach.has_route(servers, namespace):
            log.event(f"it has no route to {', '.join(servers)} of its /etc/resolv.conf")
    finally:
        namespace.close()


def register(
    container_id: str,
    file: "File | None",
    called: "list[str]",
    wanted: ContainerRequest,
    attached: "Attached",
    log: Log,
) -> str:
    """Write a container's names into the hosts files on its networks, and their names into its own.

    `file`: its hosts file, by a path on the host.  `called`: its names in addition to its aliases.  A
    container without any name gets no entry in the other files.  Returns the lines of its own file.  Raises
    OSError if that file cannot be written.
    """
    own = []
    of_host = reserved.names_of_host() if called else set()
    for one in attached:
        record = one.record
        addresses = [str(ip.net.address) for ip in one.result.ips if not ip.net.address.is_loopback]
        if addresses:
            names, private = _split(called, record, of_host, log)
            aliases = wanted.aliases_on(record.network)
            own.append(
                Entry(record.network, container_id, record.ifname, addresses, names, aliases, file, private)
            )
    gateways = [str(ip.gateway) for one in attached for ip in one.result.ips if ip.gateway]
    further = []
    for name, address in wanted.hosts:
        if address != "host-gateway":
            further.append((name, address))
        elif gateways:
            further.append((name, gateways[0]))
        else:
            log.event(f"no host {name} in its /etc/hosts: none of its networks has a gateway")
    if further and attached and not own:  # an entry is needed to write its hosts again later
        record = attached[0].record
        own.append(Entry(record.network, container_id, record.ifname, [], [], [], file))
    return hosts.add(container_id, own, further, file, log, wanted.hostname)


def _split(
    called: "list[str]", record: Record, of_host: "set[str]", log: Log
) -> "tuple[list[str], list[str]]":
    """Return the names that other containers on the network get, and those that they must not get."""
    names: list[str] = []
    private: list[str] = []
    reasons = {}
    for name in dict.fromkeys(called):
        if reserved.is_reserved(name):
            reasons[name] = "it is reserved"
        elif name.lower() in of_host:
            reasons[name] = "it is a name of the host"
        elif "." in name and not networks.parse(record.config, record.path).dotted_aliases:
            reasons[name] = "it has a dot, which the network does not allow"
        (private if name in reasons else names).append(name)
    for name, reason in reasons.items():
        log.event(f"not known as {name} on {record.network}: {reason}")
    return names, private


def host_names(name: str) -> "list[str]":
    """Return a host name and its first label; an empty list if it is not valid in a hosts file."""
    try:
        values.parse_host_name(name)
    except CniError:
        return []
    return list(dict.fromkeys([name, name.partition(".")[0]]))


def _set_hosts(
    container_id: str,
    etc: ContainerEtc,
    config: Bundle,
    wanted: ContainerRequest,
    attached: "Attached",
    log: Log,
) -> None:
    file = before = None
    problem = ""
    try:
        file = etc.file("hosts")
        # This tests the file before other code relies on it.
        before = file.read()
        if before is None:
            file.write(hosts.LOCALHOST)
        file.pin()
    except OSError as error:
        problem = message(error)
    seen = file if file and etc.is_on_host(file) and not problem else None
    full = f"{config.hostname}.{config.domainname}" if config.domainname else config.hostname
    names = [*host_names(wanted.hostname), *host_names(full), *host_names(config.hostname), container_id]
    try:
        text = register(container_id, seen, names, wanted, attached, log)
        if file and not problem and not seen:
            old = hosts.without_ours(file, [])
            if any(one.result.ips for one in attached):
                old = loopback_names.hide(old, names, container_id)
            file.write(old + text)
            log.event("its /etc/hosts is not visible on the host, so later containers cannot be added to it")
        if seen and before == "" and not etc.is_begun:
            from cnihook.names import late_hosts  # few engines mount an empty file

            if late_hosts.is_expected(config):
                late_hosts.renew_when_written(container_id, etc.pid, seen)
    except OSError as error:
        problem = message(error)
    if problem:
        log.event(f"names are not in its /etc/hosts: {problem}")


def _set_hostname(pid: int, etc: ContainerEtc, config: Bundle, name: str, log: Log) -> None:
    try:
        etc.file("hostname").write(f"{name}\n")
    except OSError as error:
        log.event(f"its name {name} is not in its /etc/hostname: {message(error)}")
    if config.uts_namespace != OWN:
        log.event(f"its host name is not {name}: it has no UTS namespace of its own")
        return
    if config.hostname not in ("", name) and not etc.is_begun:
        log.event(f"its host name is not {name}: its runtime will set the one of {config.path}")
        return
    from cnihook.linux import uts

    try:
        uts.set_hostname(pid, name)
    except OSError as error:
        log.event(f"its host name is not {name}: {message(error)}")
