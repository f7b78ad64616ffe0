# SPDX-License-Identifier: Apache-2.0
"""cli.drawing: long names, and more than fits in a line of a terminal."""

import re
from xml.etree import ElementTree

from cnihook.cli.drawing import html, svg, text
from cnihook.cli.drawing.model import Container, Interface, Network, Picture
from cnihook.cli.shared import listing
from cnihook.cli.shared.terminal import Style
from cnihook.cluster.local import LIVE, NOT_LIVE, Other

PORTS = [f"{port}->80/tcp" for port in range(8080, 8090)]


def picture() -> Picture:
    """Two containers whose long names differ at the end, and a network that both are on."""
    network = Network("a-network-with-a-name-that-is-long-1", "bridge", "br0")
    network.subnets = ["10.1.0.0/24", "2001:db8:1111:2222:3333:4444:5555:0/112"]
    network.gateways = ["10.1.0.1", "2001:db8:1111:2222:3333:4444:5555:1"]
    containers = []
    for number in (1, 2):
        container = Container(f"a-container-with-a-name-that-is-long-{number}")
        addresses = [f"10.1.0.{number + 1}", f"2001:db8:1111:2222:3333:4444:5555:{number + 1}"]
        ports = [*PORTS, "53->53/udp"] if number == 1 else []
        container.interfaces = [Interface(network, "eth0", addresses, ports, listing.ATTACHED)]
        containers.append(container)
    network.containers = len(containers)
    return Picture("host", [], [network], containers)


def test_tree_continues_what_does_not_fit_on_the_next_line() -> None:
    lines = text.tree(picture(), Style(False), 80, True)
    short = text.tree(picture(), Style(False), 40, True)

    assert max(map(len, lines)) <= 80 and max(map(len, short)) <= 40
    for word in (*PORTS, "53->53/udp", "2001:db8:1111:2222:3333:4444:5555:3", "gateway", "eth0"):
        assert word in " ".join(lines)
    assert [line for line in lines if line.endswith("…")] == []
    assert len([line for line in short if re.search(r"….*long-[12]", line)]) == 3


def test_long_names_keep_their_end() -> None:
    """The whole name is shown on hover."""
    drawn = svg.svg(picture())
    root = ElementTree.fromstring(drawn)
    names = ["".join(element.itertext()) for element in root.iter() if element.get("class") == "name"]

    for whole in ("a-network-with-a-name-that-is-long-1", "a-container-with-a-name-that-is-long-2"):
        (name,) = [name for name in names if name.startswith(whole)]
        shown = name.removeprefix(whole)
        assert re.fullmatch(r"a-.*….*-long-[12]", shown), shown


def test_published_ports_have_a_protocol() -> None:
    drawn = svg.svg(picture())

    assert "53/udp → a-con" in drawn and re.search(r"8080/tcp → a-c[^<]*:80<", drawn)


def test_each_part_is_connected_with_its_containers() -> None:
    """The page's search dims what belongs to no container that matches."""
    drawn = svg.svg(picture())
    first, second = (container.id for container in picture().containers)

    assert (
        f'class="network" data-network="a-network-with-a-name-that-is-long-1" data-of="{first} {second}"'
        in drawn
    )
    assert drawn.count(f'<g data-of="{first}">') == len(PORTS) + 1 and f'<g data-of="{second}">' not in drawn


def test_other_hosts_of_a_network_are_shown_up_to_a_number() -> None:
    """Show those that are not live first, so a picture of many hosts has them."""
    drawing = picture()
    (network,) = drawing.networks
    network.hosts = [
        Other(f"h{number}", f"192.0.2.{number}", (f"10.60.{number}.0/24", "fd00::/64"), state)
        for number, state in enumerate([NOT_LIVE, *[LIVE] * 29])
    ]
    lines = text.tree(drawing, Style(False), 80, True)
    start = next(
        number for number, line in enumerate(lines) if "30 other hosts: 1 not-live, 29 live" in line
    )
    entries = [line.split() for line in lines[start:] if "h" in line.split()[1]]
    assert max(map(len, lines)) <= 80 and "their containers are not known here" in " ".join(lines)
    assert entries[0][1:] == ["h0", "192.0.2.0", "10.60.0.0/24", "fd00::/64", "not-live"]
    assert lines[-1].split() == ["└─", "and", "20", "more"]
    root = ElementTree.fromstring(svg.svg(drawing))
    (card,) = [group for group in root.iter() if group.get("class") == "hosts"]
    shown = ["".join(element.itertext()) for element in card if element.tag.endswith("text")]
    assert shown[:6] == ["30 other hosts", "h0", "not-live", "10.60.0.0/24", "h1", "10.60.1.0/24"]
    assert shown[-2:] == ["and 20 more", "containers unknown"]
    (about,) = [element.text for element in card if element.tag.endswith("title")]
    assert about and "h0 192.0.2.0 10.60.0.0/24 fd00::/64 not-live" in about
    for drawn in (text.dot(drawing), text.mermaid(drawing)):
        assert "h9 192.0.2.9" in drawn and "h10 192.0.2.10" not in drawn and "and 20 more" in drawn
    assert '"name": "h29"' in html.html(drawing)
