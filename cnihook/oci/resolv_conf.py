# SPDX-License-Identifier: Apache-2.0
"""The text of resolv.conf(5): what was asked for, else what the networks say, else what serves the host."""

from cnihook.lean import statefile
from cnihook.spec.errors import invalid_config
from cnihook.spec.result import DNS

HOST = "/etc/resolv.conf"
WITHOUT_STUB = "/run/systemd/resolve/resolv.conf"  # the servers behind systemd-resolved's own at 127.0.0.53


def text(networks: "list[DNS]", asked: "DNS | None" = None) -> str:
    """What resolv.conf is to say: all that the networks say, each thing once; empty if that is nothing.

    What was asked for goes in the place of that, kind by kind: servers, search list, options; the domain `.`
    is an empty search list.  Without a server, those of the host stay, but for those that only it can ask.
    """
    servers: dict[str, None] = {}
    search: dict[str, None] = {}
    options: dict[str, None] = {}
    domain = ""
    for dns in networks:
        # A line break in a value would make a line of another kind.
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


def of_host() -> str:
    """The host's own for who does not share its loopback; empty if it names no server for others."""
    lines = [line for line in read(_path()).splitlines() if line[:1] not in ("#", ";", "")]
    kept = [line for line in lines if not _is_local(line)]
    return "".join(f"{line}\n" for line in kept) if any(map(_server, kept)) else ""


def host_servers() -> "list[str]":
    lines = read(_path()).splitlines()
    return [_server(line) for line in lines if _server(line) and not _is_local(line)]


def instead_of_stub() -> str:
    """The whole file for who does not share the host's loopback, where all servers are there; else empty."""
    return read(WITHOUT_STUB) if _path() == WITHOUT_STUB else ""


def _path() -> str:
    """Of the file that names real servers: the host's, unless all of its are on the loopback."""
    lines = [line for line in read(HOST).splitlines() if _server(line)]
    return WITHOUT_STUB if lines and all(map(_is_local, lines)) else HOST


def _server(line: str) -> str:
    words = line.split()
    return words[1] if len(words) > 1 and words[0] == "nameserver" else ""


def _is_local(line: str) -> bool:
    """Whether the line names a server that the host alone can ask: on its loopback, or behind its link."""
    server = _server(line)
    return server.startswith("127.") or server in ("::1", "::", "0.0.0.0") or "%" in server


def read(path: str) -> str:
    """Return the text of a file of the host; empty if there is none, or this user may not read it.

    A host may have /dev/null in its place.

    Raises CniError or OSError if it cannot be read.
    """
    try:
        content = statefile.content(path, follow=True) or b""
    except (PermissionError, statefile.NotRegular):
        return ""
    except statefile.Unusable as problem:
        raise invalid_config(f"{path}: {problem}") from None
    return content.decode(errors="surrogateescape")
