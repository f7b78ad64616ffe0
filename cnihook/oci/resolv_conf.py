# SPDX-License-Identifier: Apache-2.0
"""resolv.conf(5) for who is on networks that name their DNS servers, and its place in a container."""

import os

from cnihook.oci.bundle import Bundle
from cnihook.oci.state import State
from cnihook.spec.result import DNS

HOST = "/etc/resolv.conf"
WITHOUT_STUB = "/run/systemd/resolve/resolv.conf"  # the servers behind systemd-resolved's own at 127.0.0.53


def text(networks: "list[DNS]") -> str:
    """What resolv.conf is to say: all that the networks say, each thing once; empty if that is nothing.

    Networks that give a search list but no server leave the host's servers, but for those on its loopback.
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
    if not (servers or search or options or domain):
        return ""
    lines = [f"domain {domain}"] if domain else []
    lines += [f"search {' '.join(search)}"] if search else []
    lines += [f"nameserver {server}" for server in servers or host_servers()]
    lines += [f"options {' '.join(options)}"] if options else []
    return "\n".join(lines) + "\n"


def host_servers() -> "list[str]":
    servers = _nameservers(HOST)
    return _nameservers(WITHOUT_STUB) if only_on_loopback(servers) else servers


def only_on_loopback(servers: "list[str]") -> bool:
    """Whether the host alone can ask these servers."""
    return bool(servers) and all(server.startswith("127.") or server == "::1" for server in servers)


def instead_of_stub() -> str:
    """The whole file for who does not share the host's loopback, where all servers are there; else empty."""
    return read(WITHOUT_STUB) if only_on_loopback(_nameservers(HOST)) else ""


def _nameservers(path: str) -> "list[str]":
    lines = [line.split() for line in read(path).splitlines()]
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def write(found: State, config: Bundle, content: str) -> None:
    """Write it into a container that is being created, in place, as the container will see it.

    No link in its root file system is followed, for that belongs to whoever made the image.  Raises OSError
    with the reason where there is no such place, or it is the host's own file.
    """
    # In the container's mounts, which are there already, though its root may be the host's until pivot_root.
    root = f"/proc/{found.pid}/root"
    if os.path.samestat(os.stat(root), os.stat("/")):
        if not config.root:
            raise FileNotFoundError(2, "the container's root file system is not known")
        root += config.root
    opened = [os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        plain = os.O_NOFOLLOW | os.O_CLOEXEC
        opened.append(os.open("etc", os.O_PATH | os.O_DIRECTORY | plain, dir_fd=opened[-1]))
        # Looked at before it is opened, since opening alone may do something: wait at a FIFO, copy up a file
        # of an overlay.  And after it, since somebody else's container may share the image.
        try:
            _check(os.stat("resolv.conf", dir_fd=opened[-1], follow_symlinks=False))
        except FileNotFoundError:
            pass
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | plain
        opened.append(os.open("resolv.conf", flags, 0o644, dir_fd=opened[-1]))
        _check(os.fstat(opened[-1]))
        os.ftruncate(opened[-1], 0)
        os.write(opened[-1], os.fsencode(content))
    finally:
        for fd in opened:
            os.close(fd)


def _check(status: os.stat_result) -> None:
    if status.st_mode & 0o170000 != 0o100000:  # S_IFREG
        raise OSError(22, "it is no regular file")
    for path in (HOST, WITHOUT_STUB):
        if os.path.exists(path) and os.path.samestat(status, os.stat(path)):
            raise OSError(16, f"it is the host's own {path}, mounted there")
