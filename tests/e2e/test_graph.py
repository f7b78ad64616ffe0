# SPDX-License-Identifier: Apache-2.0
"""cnihook graph: what is in the pictures, in every form, for any number of containers."""

import json
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.hide import hide
from tests.support.host import Host
from tests.support.oci import MYNET, NET_D, Runtime, bridge, configure
from tests.support.seeing import FRONT, populated, remember, show, shown
from tests.support.skip import need

SVG = "{http://www.w3.org/2000/svg}"


def drawn(host: Host, *words: str) -> ElementTree.Element:
    return ElementTree.fromstring(shown(host, "graph", "--format", "svg", *words))


def cards(svg: ElementTree.Element) -> "dict[str, tuple[float, float, float, float]]":
    """The boxes of containers by their IDs: left, top, right, bottom."""
    found = {}
    for group in svg.iter(f"{SVG}g"):
        if (container := group.get("data-id")) is not None:
            (box,) = [rect for rect in group.iter(f"{SVG}rect") if rect.get("class") == "card"]
            x, y, width, height = (float(box.get(name) or 0) for name in ("x", "y", "width", "height"))
            found[container] = (x, y, x + width, y + height)
    return found


def test_way_out_networks_containers_addresses_and_ports_are_a_tree(host: Host) -> None:
    host.outside()
    with populated(host):
        lines = shown(host, "graph").splitlines()

    assert lines[0].endswith(": 2 networks, 3 containers")
    assert lines[1:] == [
        "├─ up0 via 198.51.100.2 via 2001:db8:100::2",
        "│  └─ front  bridge  br-front  10.30.0.0/24  gateway 10.30.0.1  NAT",
        "│     ├─ job  eth0  10.30.0.3",
        "│     └─ web  eth0  10.30.0.2  8080->80/tcp",
        "└─ no way out",
        "   └─ back  bridge  br-back  10.31.0.0/24",
        "      ├─ db   eth0  10.31.0.3",
        "      └─ web  eth1  10.31.0.2",
    ]


def test_pictures_follow_what_comes_crashes_and_goes(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)
    container = runtime.run("c1")
    assert "c1  eth0  10.22.0.2" in shown(host, "graph")
    container.kill()
    assert "c1  dead  eth0  10.22.0.2" in shown(host, "graph")
    assert "container dead" in shown(host, "graph", "--format", "svg")
    runtime.delete("c1")
    assert "1 network, 0 containers" in shown(host, "graph")


@pytest.mark.parametrize("number", [0, 1, 20, 200])
def test_every_container_has_a_place_of_its_own(host: Host, number: int) -> None:
    """No box lies on another or beyond the edge, and the shape stays about that of a screen."""
    holder = host.container("holder", process=True)
    assert holder.pid
    remember(host, number, holder.pid)

    svg = drawn(host)
    boxes = cards(svg)
    width, height = (float(svg.get(name) or 0) for name in ("width", "height"))
    assert len(boxes) == number
    placed = list(boxes.values())
    for count, (left, top, right, bottom) in enumerate(placed):
        assert 0 < left < right < width and 0 < top < bottom < height
        for other in placed[:count]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    if number >= 20:
        assert 0.7 < width / height < 2.5


def test_svg_and_html_hold_every_fact(host: Host) -> None:
    with populated(host):
        for form in ("svg", "html"):
            text = shown(host, "graph", "--format", form)
            for word in (
                "web",
                "db",
                "job",
                "front",
                "back",
                "10.30.0.2",
                "10.31.0.0/24",
                "8080",
                "br-back",
            ):
                assert word in text, (form, word)


def test_page_needs_nothing_from_the_network(host: Host) -> None:
    """By what is in it, and by what it allows itself."""
    with populated(host):
        text = shown(host, "graph", "--format", "html")

    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(link|img|iframe|script [^>]*src)|@import|url\(", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("number", [0, 1, 20, 200])
def test_page_works_in_a_browser(host: Host, tmp_path: Path, number: int) -> None:
    """Its search leaves what matches, the focus shows details; by a line more that does what readers do."""
    need("chromium")
    holder = host.container("holder", process=True)
    assert holder.pid
    remember(host, number, holder.pid)
    last = f"box-{max(number - 1, 0):03}"
    reader = """<script>
        const field = document.getElementById("search");
        field.value = "box-123";
        field.dispatchEvent(new Event("input"));
        for (const card of cards) if (card.dataset.id === "box-123") card.dispatchEvent(new Event("focus"));
        </script></body>""".replace("box-123", last)
    page = tmp_path / "page.html"
    page.write_text(shown(host, "graph", "--format", "html").replace("</body>", reader))

    argv = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
        "--dump-dom",
    ]
    done = subprocess.run(["chromium", *argv, str(page)], capture_output=True, text=True, timeout=60)

    assert re.findall(r'<span id="found">([^<]*)', done.stdout) == [f"{min(number, 1)} of {number}"]
    assert len(re.findall(r'<g class="[^"]*\baway\b', done.stdout)) == max(number - 1, 0)
    about = done.stdout.partition('<div id="about"')[2].partition("</div>")[0]
    assert (f"<b>{last}</b>" in about and re.search(r"10\.4[012]\.0\.\d+", about) is not None) is bool(
        number
    )
    assert "Uncaught" not in done.stderr


def test_text_of_a_configuration_stays_text(host: Host) -> None:
    """A file of net.d may hold anything; none of it is markup, or a command to the terminal."""
    evil = "</script><b a='\"&\\\x1b[31m>"
    configure(host, bridge("front", "10.30.0.0/24", bridge=evil))

    for form in ("svg", "html", "dot", "mermaid", "text"):
        text = shown(host, "graph", "--format", form)
        assert "\x1b" not in text
        if form in ("svg", "html"):
            assert "<b a" not in text and text.count("</script>") == (form == "html")
    ElementTree.fromstring(shown(host, "graph", "--format", "svg"))


def test_graphviz_takes_the_dot(host: Host) -> None:
    need("dot")
    with populated(host):
        text = shown(host, "graph", "--format", "dot")
    plain = host.run("dot", "-Tplain", input=text).stdout

    assert len(re.findall(r"^node c\d", plain, re.M)) == 3
    assert len(re.findall(r"^edge n\d c\d", plain, re.M)) == 4


def test_mermaid_has_every_edge(host: Host) -> None:
    with populated(host):
        lines = shown(host, "graph", "--format", "mermaid").splitlines()

    assert lines[0] == "---" and lines[3] == "flowchart LR"
    assert len([line for line in lines if re.match(r'  n\d ---\|"eth\d [0-9.]+"\| c\d$', line)]) == 4
    assert '  c2("web<br>8080-#gt;80/tcp")' in lines


def test_ending_of_the_file_chooses_the_form(host: Host) -> None:
    begins = {
        "svg": "<svg ",
        "html": "<!DOCTYPE html>",
        "dot": "graph networks {",
        "mmd": "---\n",
        "txt": "host ",
    }
    with populated(host):
        for ending, start in begins.items():
            assert shown(host, "graph", "-o", f"/run/.host/picture.{ending}") == ""
            assert host.read(f"/run/.host/picture.{ending}").startswith(start)
        shown(host, "graph", "-o", "/run/.host/picture.json")
        told = json.loads(host.read("/run/.host/picture.json"))
    assert [one["container"] for one in told["containers"]] == ["db", "job", "web"]


def test_png_is_made_where_there_is_a_program_for_it(host: Host) -> None:
    need("rsvg-convert")
    configure(host, FRONT)

    shown(host, "graph", "-o", "/run/.host/picture.png")
    assert (host.root / "run/.host/picture.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_png_without_one_names_the_package(host: Host) -> None:
    hide(host, "rsvg-convert")
    done = show(host, "graph", "--format", "png")

    assert (done.returncode, done.stdout) == (1, "")
    assert "rsvg-convert" in done.stderr and "apt-get install librsvg2-bin" in done.stderr


def test_file_that_cannot_be_written_is_named(host: Host) -> None:
    done = show(host, "graph", "-o", "/nosuch/picture.svg")
    assert (done.returncode, done.stderr) == (
        1, "cnihook: graph: /nosuch/picture.svg: No such file or directory\n"
    )  # fmt: skip


def test_network_without_containers_and_damaged_files_hide_nothing(host: Host) -> None:
    configure(host, FRONT)
    host.write(f"{NET_D}/20-broken.conf", "{")

    assert "front  bridge" in shown(host, "graph")
