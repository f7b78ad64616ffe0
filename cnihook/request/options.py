# SPDX-License-Identifier: Apache-2.0
"""
The options of a container's request, the same for flags and annotations, and their parsers.

A flag `--publish 8080:80` and an annotation `cnihook.publish: 8080:80` mean the same; this is true for every
option below.  An annotation holds several values with commas between them.  request.option_table describes
the same options for readers.
"""

from cnihook.request.request import ContainerRequest
from cnihook.request.reserved import MOST_ALIASES
from cnihook.request.values import (
    NPWG,
    parse_alias,
    parse_bandwidth,
    parse_host,
    parse_host_name,
    parse_ip,
    parse_label,
    parse_mac,
    parse_networks,
    parse_option,
    parse_policy_name,
    parse_ports,
    parse_route,
    parse_search,
    parse_server,
    parse_switch,
    refuse,
    refuse_reserved,
    split_networks,
)
from cnihook.types.errors import CniError
from cnihook.types.names import ANNOTATION_PREFIX, check_sticky_name, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

PREFIX = ANNOTATION_PREFIX
NETWORKS = f"{PREFIX}networks"
MOST_BYTES = 64 << 10  # of all annotations that are read here, names and values

# The vocabulary


def _add_networks(request: ContainerRequest, text: str) -> None:
    request.networks = [*(request.networks or ()), *parse_networks(text)]


def _set_hostname(request: ContainerRequest, text: str) -> None:
    request.hostname = parse_host_name(text)
    refuse_reserved(f"host name {shown(text)}", request.hostname)


def _set_sticky(request: ContainerRequest, text: str) -> None:
    check_sticky_name(text)
    request.sticky = text


def _set_mac(request: ContainerRequest, text: str) -> None:
    request.common.mac = parse_mac(text)


def _add_emulation(request: ContainerRequest, text: str) -> None:
    from cnihook.request import emulation  # few containers emulate a network

    for direction, values in emulation.parse(text).items():
        request.common.emulation.setdefault(direction, {}).update(values)


def _add_quota(request: ContainerRequest, text: str) -> None:
    from cnihook.request import quota  # few containers have one

    request.common.quota.update(quota.parse(text))


def _set_mdns(request: ContainerRequest, text: str) -> None:
    from cnihook.request import mdns  # few containers request it

    request.mdns = mdns.parse(text)


def _set_no_default_route(request: ContainerRequest, text: str) -> None:
    request.common.no_default_route = parse_switch(text)


def _add_egress(request: ContainerRequest, text: str) -> None:
    request.egress = _longer(request.egress, text, "egress")


def _add_ingress(request: ContainerRequest, text: str) -> None:
    request.ingress = _longer(request.ingress, text, "ingress")


def _set_weak_policy(request: ContainerRequest, text: str) -> None:
    request.weak_policy = parse_switch(text)


def _longer(present: str, text: str, direction: str) -> str:
    from cnihook.policy import peers  # few containers have a list of their own

    longer = f"{present},{text}" if present else text
    peers.parse_short(longer, direction)
    return longer


class Option:
    """The reader of one option.  request.option_table has its form and its purpose.

    `most`: the number of values that one container may have in the list that `held` returns; 0 if an option
    has one value.  `is_switch`: it needs no value.
    """

    __slots__ = ("_add", "_held", "is_switch", "most", "short")

    def __init__(
        self,
        add: "Callable[[ContainerRequest, str], object]",
        most: int = 0,
        held: "Callable[[ContainerRequest], list[Any] | None] | None" = None,
        *,
        short: str = "",
        is_switch: bool = False,
    ) -> None:
        self._add = add
        self._held = held
        self.most = most
        self.short = short
        self.is_switch = is_switch

    def add(self, request: ContainerRequest, text: str) -> None:
        """Add one value to `request`.  Raises CniError if it is malformed, or if there are too many."""
        self._add(request, text)
        if self._held and len(self._held(request) or ()) > self.most:
            raise refuse(shown(text), f"there are more than {self.most}; a container may have no more")


OPTIONS = {
    "network": Option(_add_networks, 256, lambda w: w.networks),
    "ip": Option(lambda w, t: w.common.ips.append(parse_ip(t, 4)), 64, lambda w: w.common.ips),
    "ip6": Option(lambda w, t: w.common.ips.append(parse_ip(t, 6)), 64, lambda w: w.common.ips),
    "mac-address": Option(_set_mac),
    "publish": Option(
        lambda w, t: w.common.ports.extend(parse_ports(t)), 1 << 16, lambda w: w.common.ports, short="-p"
    ),
    "bandwidth": Option(lambda w, t: w.common.bandwidth.update(parse_bandwidth(t))),
    "emulate": Option(_add_emulation),
    "quota": Option(_add_quota),
    "dns": Option(lambda w, t: w.dns.nameservers.append(parse_server(t)), 16, lambda w: w.dns.nameservers),
    "dns-search": Option(lambda w, t: w.dns.search.append(parse_search(t)), 32, lambda w: w.dns.search),
    "dns-option": Option(lambda w, t: w.dns.options.append(parse_option(t)), 32, lambda w: w.dns.options),
    "hostname": Option(_set_hostname),
    "mdns": Option(_set_mdns, is_switch=True),
    "add-host": Option(lambda w, t: w.hosts.append(parse_host(t)), 256, lambda w: w.hosts),
    "network-alias": Option(
        lambda w, t: w.common.aliases.append(parse_alias(t)), MOST_ALIASES, lambda w: w.common.aliases
    ),
    "sticky": Option(_set_sticky),
    "route": Option(lambda w, t: w.common.routes.append(parse_route(t)), 256, lambda w: w.common.routes),
    "no-default-route": Option(_set_no_default_route, is_switch=True),
    "egress": Option(_add_egress),
    "ingress": Option(_add_ingress),
    "policy": Option(lambda w, t: w.policies.append(parse_policy_name(t)), 16, lambda w: w.policies),
    "weak-policy": Option(_set_weak_policy, is_switch=True),
    "label": Option(lambda w, t: w.labels.update(parse_label(t)), 64, lambda w: list(w.labels)),
}


_OF_KEYS = ("bandwidth", "emulate", "quota")  # a value is KEY=VALUE,...; several of them become one


def annotation_of(word: str) -> str:
    return NETWORKS if word == "network" else f"{PREFIX}{word}"


# The names that bounds on annotations may have.  The last one is a key of the NPWG annotation, not an
# option.
BOUNDED = (*(annotation_of(word).removeprefix(PREFIX) for word in OPTIONS), "cni-args")

_BY_FLAG = {f"--{word}": entry for word, entry in OPTIONS.items()}
_BY_FLAG.update((entry.short, entry) for entry in OPTIONS.values() if entry.short)


def option_for(flag: str) -> "Option | None":
    """Return the entry of OPTIONS for an option of a command line, or None."""
    return _BY_FLAG.get(flag)


def has_requests(annotations: "Iterable[str]") -> bool:
    """Return True if one of these is an annotation that requests something of cnihook."""
    return any(name.startswith(PREFIX) or name == NPWG for name in annotations)


def from_annotations(annotations: "Mapping[str, str]") -> ContainerRequest:
    """Return what annotations request.  Raises CniError, with the annotation's name, for a malformed one.

    The annotations are only read here; request.trusted_annotations decides whether they are allowed.
    """
    request = ContainerRequest()
    # Only cnihook's annotations count: kubectl stores a whole manifest in its own annotation.
    read = {name: text for name, text in annotations.items() if has_requests([name])}
    size = sum(len(name) + len(text) for name, text in read.items())
    if size > MOST_BYTES:
        longest = max(read, key=lambda name: len(read[name]))
        raise refuse(
            f"annotation {longest}",
            f"the annotations of cnihook have {size} bytes; {MOST_BYTES} is the most",
        )
    for name, text in read.items():
        if name.startswith(PREFIX):
            try:
                _add_annotation(request, name, text)
            except CniError as error:
                raise error.wrapped(f"annotation {name}={shown(text)}") from None
    if NPWG in annotations and request.networks is None:
        from cnihook.request import npwg

        request.networks = npwg.parse(annotations[NPWG])
    return request


def _add_annotation(request: ContainerRequest, name: str, text: str) -> None:
    if name == NETWORKS:
        OPTIONS["network"].add(request, text)
        return
    word = name.removeprefix(PREFIX)
    if word not in OPTIONS or word == "network":
        raise refuse("unknown annotation", f"there are {', '.join(map(annotation_of, OPTIONS))}")
    values = text.split(",") if OPTIONS[word].most else [text]
    for value in values:
        if value.strip() or not OPTIONS[word].most:
            OPTIONS[word].add(request, value.strip())


def to_annotations(said: "list[tuple[str, str]]") -> "dict[str, str]":
    """Return the annotations for these options and values.  Raises CniError for a malformed value.

    A command uses them if it cannot pass the options: another program starts the container, or later.
    """
    texts: dict[str, list[str]] = {}
    for word, text in said:
        option = OPTIONS[word]
        option.add(ContainerRequest(), text)
        if option.most and word != "network" and "," in text:
            raise refuse(f"--{word} {shown(text)}", "in an annotation, a comma is the end of a value")
        texts.setdefault(word, []).append((text or "true") if option.is_switch else text)
    annotations = {}
    for word, values in texts.items():
        if word == "network":
            names = [name for value in values for name in split_networks(value)]
            annotations[NETWORKS] = (" " if any("=" in name for name in names) else ",").join(names)
        else:
            joined = OPTIONS[word].most or word in _OF_KEYS or word in ("egress", "ingress")
            annotations[annotation_of(word)] = ",".join(values) if joined else values[-1]
    return annotations
