# SPDX-License-Identifier: Apache-2.0
"""
Lines of a hosts file that map a container's own names to the loopback.

Engines such as podman write them for a container with `--network none`; Debian uses 127.0.1.1.  Other
containers cannot reach a program that binds to its host name, or announces it.  A line before these is not
enough: musl and RFC 6724 sort all addresses of a name.  So these lines become comments while the container
has an address on a network:

    127.0.0.1 localhost app    127.0.0.1 localhost
                               # hidden by cnihook for c1: 127.0.0.1 app
    127.0.0.1 app web          # hidden by cnihook for c1: 127.0.0.1 app web
"""

from cnihook.request.reserved import is_reserved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def hide(text: str, names: "Iterable[str]", container_id: str, *, whole: bool = False) -> str:
    """Return the text without a loopback address for these names, except reserved ones such as localhost.

    `whole`: hide all names of such a line, unless one of them is reserved.
    """
    own = {name.lower() for name in names if not is_reserved(name)}
    lines = []
    for line in text.splitlines(keepends=True):
        address, *others = line.partition("#")[0].split() or [""]
        if address.startswith("127.") or address == "::1":
            hidden = [name for name in others if name.lower() in own]
            if hidden:
                if whole and not any(map(is_reserved, others)):
                    hidden = others
                kept = [name for name in others if name not in hidden]
                line = f"{address}\t{' '.join(kept)}\n" if kept else ""
                line += f"{_prefix(container_id)}{address}\t{' '.join(hidden)}\n"
        lines.append(line)
    return "".join(lines)


def show(text: str, container_id: str) -> str:
    """Return the text with the hidden lines restored."""
    return text.replace(_prefix(container_id), "")


def hidden_names(text: str, container_id: str) -> "list[str]":
    prefix = _prefix(container_id)
    lines = [line.removeprefix(prefix).split() for line in text.splitlines() if line.startswith(prefix)]
    return list(dict.fromkeys(name for _address, *names in lines for name in names))


def has_hidden(text: str, container_id: str) -> bool:
    return _prefix(container_id) in text


def _prefix(container_id: str) -> str:
    return f"# hidden by cnihook for {container_id}: "
