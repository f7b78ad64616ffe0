# SPDX-License-Identifier: Apache-2.0
"""A picture of networks as text: a tree, and the input of Graphviz and Mermaid."""

from collections.abc import Iterator

from cnihook.cli.drawing import hosts
from cnihook.cli.drawing.model import NO_WAY, Container, Interface, Network, Picture, Uplink
from cnihook.cli.shared import listing
from cnihook.cli.shared.terminal import Style, cut, cut_middle, printable

_LINES = {True: ("├─ ", "└─ ", "│  ", "   "), False: ("|- ", "`- ", "|  ", "   ")}


def tree(picture: Picture, style: Style, width: int, unicode: bool) -> "list[str]":
    """Return the lines of a tree: uplinks, below each its networks, below these their containers."""
    branch = _LINES[unicode]
    roots: list[tuple[str, list[Network]]] = []
    placed: set[str] = set()
    for uplink in picture.uplinks:
        on = [one for one in picture.networks if one.uplinks[:1] == [uplink.dev]]
        roots.append((_uplink(uplink), on))
        placed |= {one.name for one in on}
    left = [one for one in picture.networks if one.name not in placed]
    if left or not roots:
        why = "no way out" if picture.uplinks else "no default route"
        roots.append((why, left))

    lines = [style(cut(printable(picture.title), width), "bold")]
    for number, (root, on) in enumerate(roots):
        first, rest = _branch(branch, number == len(roots) - 1)
        lines.append(cut(first + printable(root), width))
        for place, network in enumerate(on):
            lines += _of_network(picture, network, rest, branch, place == len(on) - 1, style, width)
    return lines


def _of_network(
    picture: Picture,
    network: Network,
    prefix: str,
    branch: "tuple[str, ...]",
    last: bool,
    style: Style,
    width: int,
) -> "list[str]":
    first, rest = _branch(branch, last)
    words = [network.kind, network.link, *network.subnets]
    words += [f"gateway {' '.join(network.gateways)}"] if network.gateways else []
    words += [network.out] if network.uplinks else []
    name = cut_middle(printable(network.name), max(width - len(prefix) - 3, 8))
    lines = _wrapped(prefix + first, prefix + rest, [name, *words], width)
    lines[0] = lines[0].replace(name, style(name, "cyan"), 1)
    on = list(_on(picture, network))
    label = max((len(printable(container.label)) for container, _ in on), default=0) if width > 79 else 0
    for number, (container, interface) in enumerate(on):
        is_last = number == len(on) - 1 and not network.hosts
        before, below = (prefix + rest + each for each in _branch(branch, is_last))
        words = [interface.ifname, *interface.addresses, *interface.ports, _limits(interface)]
        if interface.state != listing.ATTACHED:
            words.insert(0, interface.state)
        room = max((width - len(before)) // 2, 8)
        name = cut_middle(printable(container.label), room).ljust(min(label, room))
        texts = _wrapped(before, below, [name, *words], width)
        colour = listing.COLOURS[interface.state] if interface.state != listing.ATTACHED else ""
        lines.append(before + style(texts[0].removeprefix(before), colour))
        lines += [below + style(text.removeprefix(below), colour) for text in texts[1:]]
    return lines + (_other_hosts(network, prefix + rest, branch, style, width) if network.hosts else [])


def _other_hosts(
    network: Network, prefix: str, branch: "tuple[str, ...]", style: Style, width: int
) -> "list[str]":
    """Return the last entry of a network that several hosts share: the others, and their blocks."""
    first, rest = _branch(branch, True)
    lines = _wrapped(prefix + first, prefix + rest, [hosts.summary(network.hosts), hosts.NOTE], width)
    some, more = hosts.shown(network.hosts)
    entries = [
        ([host.name, host.address, *host.blocks, host.state], hosts.STYLES[host.state]) for host in some
    ]
    entries += [([more], "")] if more else []
    for number, (words, colour) in enumerate(entries):
        before, below = (prefix + rest + each for each in _branch(branch, number == len(entries) - 1))
        room = max((width - len(before)) // 2, 8)
        texts = _wrapped(before, below, [cut_middle(words[0], room), *words[1:]], width)
        lines.append(before + style(texts[0].removeprefix(before), colour))
        lines += [below + style(text.removeprefix(below), colour) for text in texts[1:]]
    return lines


def _wrapped(first: str, rest: str, words: "list[str]", width: int) -> "list[str]":
    """Return words with a gap between them, in as many lines as they take; the further ones are indented."""
    lines = [first + words[0]]
    for word in filter(None, map(printable, words[1:])):
        if len(lines[-1]) + 2 + len(word) <= width:
            lines[-1] += f"  {word}"
        else:
            lines.append(cut(f"{rest}    {word}", max(width, len(rest) + 8)))
    return lines


def _branch(branch: "tuple[str, ...]", last: bool) -> "tuple[str, str]":
    """Return the prefix of an entry, and that of the lines below it."""
    return (branch[1], branch[3]) if last else (branch[0], branch[2])


def _on(picture: Picture, network: Network) -> "Iterator[tuple[Container, Interface]]":
    for container in picture.containers:
        for interface in container.interfaces:
            if interface.network is network:
                yield container, interface


def _uplink(uplink: Uplink) -> str:
    return " ".join([uplink.dev, *(f"via {gateway}" for gateway in uplink.gateways)])


def _limits(interface: Interface) -> str:
    return f"[{', '.join(interface.limits)}]" if interface.limits else ""


def _place(interface: Interface) -> str:
    """Return the label of the line from a network to a container."""
    return " ".join(filter(None, [interface.ifname, *interface.addresses, _limits(interface)]))


def _about(network: Network) -> "list[str]":
    """Return the lines of a network's box."""
    gateways = [f"gateway {gateway}" for gateway in network.gateways]
    kind = f"{network.kind} {network.link}".strip()
    return [*filter(None, [network.name, kind]), *network.subnets, *gateways]


# Graphviz


def dot(picture: Picture) -> str:
    lines = [
        "graph networks {",
        f"  label={_quoted(picture.title)}; labelloc=t; rankdir=LR; fontname=sans; ranksep=1.2;",
        "  node [shape=box, style=rounded, fontname=sans, fontsize=10];",
        "  edge [fontname=sans, fontsize=9];",
    ]
    for number, uplink in enumerate(picture.uplinks):
        label = _quoted("\n".join([uplink.dev, *uplink.gateways]))
        lines.append(f"  u{number} [label={label}, shape=house];")
    devs = [uplink.dev for uplink in picture.uplinks]
    for number, network in enumerate(picture.networks):
        lines.append(f'  n{number} [label={_quoted(chr(10).join(_about(network)))}, style="filled,bold"];')
        for dev in network.uplinks:
            lines.append(f"  u{devs.index(dev)} -- n{number} [label={_quoted(network.out)}];")
        if network.hosts:
            label = _quoted("\n".join(hosts.lines(network.hosts)))
            lines += [f"  h{number} [label={label}, style=dashed];", f"  n{number} -- h{number};"]
    for number, container in enumerate(picture.containers):
        ports = [port for interface in container.interfaces for port in interface.ports]
        label = _quoted("\n".join([container.label, *ports]))
        colour = "" if container.state == listing.ATTACHED else ", color=red, style=dashed"
        lines.append(f"  c{number} [label={label}{colour}];")
        for interface in container.interfaces:
            place = picture.networks.index(interface.network)
            label = _quoted(_place(interface))
            lines.append(f"  n{place} -- c{number} [label={label}];")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    text = "\n".join(printable(line) for line in text.split("\n"))
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


# Mermaid


def mermaid(picture: Picture) -> str:
    lines = ["---", f"title: {_in_mermaid([picture.title])}", "---", "flowchart LR"]
    devs = [uplink.dev for uplink in picture.uplinks]
    for number, uplink in enumerate(picture.uplinks):
        lines.append(f"  u{number}([{_in_mermaid([uplink.dev, *uplink.gateways])}])")
    for number, network in enumerate(picture.networks):
        lines.append(f"  n{number}[[{_in_mermaid(_about(network))}]]")
        if network.out == NO_WAY:
            lines.append(f"  style n{number} stroke-dasharray: 4")
        for dev in network.uplinks:
            lines.append(f"  u{devs.index(dev)} ---|{_in_mermaid([network.out])}| n{number}")
        if network.hosts:
            lines.append(f"  h{number}({_in_mermaid(hosts.lines(network.hosts))})")
            lines += [f"  style h{number} stroke-dasharray: 2", f"  n{number} --- h{number}"]
    for number, container in enumerate(picture.containers):
        ports = [port for interface in container.interfaces for port in interface.ports]
        lines.append(f"  c{number}({_in_mermaid([container.label, *ports])})")
        if container.state != listing.ATTACHED:
            lines.append(f"  style c{number} stroke:#d00,stroke-dasharray: 4")
        for interface in container.interfaces:
            place = picture.networks.index(interface.network)
            label = _in_mermaid([_place(interface)])
            lines.append(f"  n{place} ---|{label}| c{number}")
    return "\n".join(lines) + "\n"


def _in_mermaid(words: "list[str]") -> str:
    """Return a label of these lines.  Its entities are those of HTML, with # instead of &."""
    escaped = (
        printable(word).replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
        for word in words
    )
    return '"' + "<br>".join(escaped) + '"'
