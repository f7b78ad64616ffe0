# SPDX-License-Identifier: Apache-2.0
"""The text of resolv.conf(5): the requested settings, else those of the networks, else those of the host."""

import os

from cnihook.fast.address import Address
from cnihook.request import host_file
from cnihook.types.result import DNS, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.runtime.records import Record

# The first line of a file that cnihook wrote names the source of its servers.
MARK = "# cnihook: "
AS_ASKED, OF_NETWORKS, OF_HOST = "as asked for", "of the networks", "of the host"
# The second line of a file with servers of the host, and a digest of the lines below.
_FOLLOWS = "# cnihook replaces the servers when the host's change, unless the lines below were edited: "

HOST = "/etc/resolv.conf"
_RESOLVER = "/run/cnihook/resolver"  # of resolver.listing, which is not imported just to look for it
WITHOUT_STUB = "/run/systemd/resolve/resolv.conf"  # the servers behind systemd-resolved's own at 127.0.0.53


def text(networks: "list[DNS]", asked: "DNS | None" = None) -> str:
    """Return the content of resolv.conf with the settings of all networks, each once; empty without any.

    `asked` replaces them, separately for servers, search list and options.  The domain `.` is an empty
    search list.  Without a server, those of the host are used, except those that only the host can reach.
    """
    servers: dict[str, None] = {}
    search: dict[str, None] = {}
    options: dict[str, None] = {}
    domain = ""
    for dns in networks:
        # A line break in a value could start another kind of line.
        servers.update((word, None) for value in dns.nameservers for word in value.split()[:1])
        search.update((word, None) for value in dns.search for word in value.split())
        options.update((word, None) for value in dns.options for word in value.split())
        domain = domain or "".join(dns.domain.split()[:1])
    if asked:
        servers = dict.fromkeys(asked.nameservers) or servers
        options = dict.fromkeys(asked.options) or options
        if asked.search:
            search, domain = dict.fromkeys(name for name in asked.search if name != "."), ""
    if not (servers or search or options or domain or asked):
        return ""
    lines = [f"domain {domain}"] if domain else []
    lines += [f"search {' '.join(search)}"] if search else []
    lines += [f"nameserver {server}" for server in servers or host_servers()]
    lines += [f"options {' '.join(options)}"] if options else []
    return "".join(f"{line}\n" for line in lines)


def difference(content: str, networks: "list[DNS]") -> DNS:
    """Return the settings of a file that are not those of the networks: they were requested."""
    own, usual = _settings(content), _settings(text(networks))
    is_following = _parts(content)[1].startswith(_FOLLOWS)
    return DNS(
        [] if is_following or own.nameservers == usual.nameservers else own.nameservers,
        "",
        (own.search or ["."]) if (own.domain, own.search) != (usual.domain, usual.search) else [],
        own.options if own.options != usual.options else [],
    )


def _settings(content: str) -> DNS:
    """Return the settings in the text of a file."""
    settings = DNS(servers_of(content))
    for line in content.splitlines():
        keyword, *words = line.split() or [""]
        if keyword in ("search", "options"):
            setattr(settings, keyword, words)
        elif keyword == "domain":
            settings.domain = words[0] if words else ""
    return settings


def marked(source: str, text: str, *, is_following: bool) -> str:
    """Return the whole file.  `is_following`: its servers are those of the host."""
    follows = f"{_FOLLOWS}{_digest(text)}\n" if is_following else ""
    return f"{MARK}{source}\n{follows}{text}"


def is_unchanged(old: str) -> bool:
    """Return True if cnihook wrote the file, and if nothing shows that it was edited."""
    first, second, text = _parts(old)
    is_edited = second.startswith(_FOLLOWS) and second != f"{_FOLLOWS}{_digest(text)}"
    return first.startswith(MARK) and not is_edited


def _parts(text: str) -> "tuple[str, str, str]":
    """Return the first line, the second one, and the rest."""
    first, _, rest = text.partition("\n")
    second, _, others = rest.partition("\n")
    return first, second, others


def renewed(old: str) -> str:
    """Return a file with the present servers of the host, or an empty text if the file needs no change.

    It needs none if its servers are not of the host, if it was edited, and as long as the host has no server
    that others can reach.  An empty file is one of a container that started then.
    """
    source, text = OF_HOST, ""
    if old.strip():
        first, second, text = _parts(old)
        source = first.removeprefix(MARK)
        if not (is_unchanged(old) and second.startswith(_FOLLOWS)):
            return ""
    new = host_text() if source == OF_HOST else _with_servers(text, host_servers())
    return marked(source, new, is_following=True) if new not in ("", text) else ""


def _with_servers(text: str, servers: "list[str]") -> str:
    """Return the lines of text() with other servers; empty without any."""
    others = [line for line in text.splitlines() if not _server(line)]
    options = [line for line in others if line.startswith("options ")]
    lines = [line for line in others if line not in options]
    lines += [f"nameserver {server}" for server in servers] + options
    return "".join(f"{line}\n" for line in lines) if servers else ""


def _digest(text: str) -> str:
    from _blake2 import blake2s

    return blake2s(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def requested(container_id: str, asked: DNS, records: "list[Record]") -> DNS:
    """Return the requested settings; with names in a policy, the servers are the container's gateways."""
    if not any("policy" in record.extra for record in records) or not os.path.isdir(_RESOLVER):
        return asked
    from cnihook.names import policy_dns  # few containers have names in their policies

    return policy_dns.settings(container_id, asked)


def host_text() -> str:
    """Return the host's settings for a container with its own loopback; empty if it can reach no server."""
    lines = [line for line in host_file.read(_path()).splitlines() if line[:1] not in ("#", ";", "")]
    kept = [line for line in lines if not _is_local(_server(line))]
    return "".join(f"{line}\n" for line in kept) if any(map(_server, kept)) else ""


def of_host() -> str:
    """Return the whole file for a container with the servers of the host; empty if it can reach none."""
    text = host_text()
    return marked(OF_HOST, text, is_following=True) if text else ""


def host_servers() -> "list[str]":
    """Return the host's servers, except those that only the host can reach."""
    return [server for server in servers_of(host_file.read(_path())) if not _is_local(server)]


def servers_of_file(path: str) -> "list[str]":
    return servers_of(host_file.read(path))


def servers_of(content: str) -> "list[str]":
    """Return the servers that a file names."""
    return list(filter(None, map(_server, content.splitlines())))


def of_command(networks: "list[DNS]", asked: DNS) -> "tuple[str, list[str]]":
    """Return the text of a command's own file, empty if it uses that of the host, and the servers in use."""
    own = text(networks, asked)
    if not own:
        servers = servers_of(host_file.read(HOST))
        if _are_local(servers):
            own = host_file.read(WITHOUT_STUB)
        if not own:
            return "", servers
    return own, servers_of(own)


def are_unreachable(servers: "list[str]", asked: DNS, results: "list[Result]") -> bool:
    """Return True if no address and no route of these networks leads to one of the servers.

    A requested server on the loopback may be a program of the container.  A container without an address
    other than the loopback's needs no server.
    """
    nets = [ip.net for result in results for ip in result.ips if not ip.net.address.is_loopback]
    if not nets:
        return False
    nets += [route.dst for result in results for route in result.routes]
    for server in servers:
        try:
            address = Address.parse(server.partition("%")[0])
        except ValueError:
            return False
        if address.is_loopback:
            if server in asked.nameservers:
                return False
        elif "%" in server or any(net.address.version == address.version and address in net for net in nets):
            return False
    return bool(servers)


def _path() -> str:
    """Return the path of the file with real servers: the host's, unless all in it are on the loopback."""
    return WITHOUT_STUB if _are_local(servers_of(host_file.read(HOST))) else HOST


def _server(line: str) -> str:
    words = line.split()
    return words[1] if len(words) > 1 and words[0] == "nameserver" else ""


def _are_local(servers: "list[str]") -> bool:
    return bool(servers) and all(map(_is_local, servers))


def _is_local(server: str) -> bool:
    """Return True if only the host can reach a server: on its loopback, or on one link."""
    return server.startswith("127.") or server in ("::1", "::", "0.0.0.0") or "%" in server
