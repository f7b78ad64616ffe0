# SPDX-License-Identifier: Apache-2.0
"""Which networks a container wants, in the words of annotations and flags: mynet,storage:eth1"""

from cnihook.runtime.networks import Want
from cnihook.spec.errors import INVALID_CONFIG, CniError
from cnihook.spec.names import check_ifname, check_network_name, shown

ANNOTATION = "cnihook.networks"


def parse_network(text: str) -> Want:
    """NAME or NAME:IFNAME.  Raises CniError."""
    name, colon, ifname = text.strip().partition(":")
    check_network_name(name)
    if colon:
        check_ifname(ifname)
    return Want(name, ifname)


def parse_networks(text: str) -> "list[Want]":
    """A list with commas between; an empty text is no network at all."""
    return [parse_network(part) for part in text.split(",") if part.strip()]


def from_annotations(annotations: "dict[str, str]") -> "list[Want] | None":
    """None if the container says nothing of it."""
    text = annotations.get(ANNOTATION)
    if text is None:
        return None
    try:
        return parse_networks(text)
    except CniError as error:
        raise CniError(
            INVALID_CONFIG, f"annotation {ANNOTATION}={shown(text)}: {error.msg}", error.details
        ) from None
