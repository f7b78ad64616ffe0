# SPDX-License-Identifier: Apache-2.0
"""cnihook graph: the content of the pictures, in every format, for any number of containers."""

import json
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.commands.listings import FRONT, populated, remember, show, shown
from tests.support.host.hidden_programs import hide
from tests.support.host.host import Host
from tests.support.runtimes.oci import MYNET, NET_D, RESULTS, Runtime, bridge, configure
from tests.support.skip import need

SVG = "{http://www.w3.org/2000/svg}"


def drawn(host: Host, *words: str) -> ElementTree.Element:
    return ElementTree.fromstring(shown(host, "graph", "--format", "svg", *words))


def cards(svg: ElementTree.Element) -> "dict[str, tuple[float, float, float, float]]":
    """Return the boxes of the containers by ID, each as left, top, right, bottom."""
    boxes = {}
    for group in svg.iter(f"{SVG}g"):
        if (container := group.get("data-id")) is not None:
            (box,) = [rect for rect in group.iter(f"{SVG}rect") if rect.get("class") == "card"]
            x, y, width, height = (float(box.get(name) or 0) for name in ("x", "y", "width", "height"))
            boxes[container] = (x, y, x + width, y + height)
    return boxes


def test_text_is_a_tree_of_uplinks_networks_and_containers(host: Host) -> None:
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


def test_every_format_marks_what_is_limited(host: Host) -> None:
    """A policy of the host counts, and what is on record; `inspect` prints the values."""
    host.leaves("dir /etc/cnihook", "dir /etc/cnihook/policy.d", "file /etc/cnihook/policy.d/*")
    with populated(host):
        host.write(
            "/etc/cnihook/policy.d/one.json",
            '{"name": "one", "select": {"containers": ["j?b"]}, "ingress": {}}',
        )
        (path,) = (f"{RESULTS}/{name}" for name in host.listdir(RESULTS) if name.startswith("front-web-"))
        record = json.loads(host.read(path))
        record["capabilityArgs"] |= {
            "quota": {"egress": 10**10},
            "emulate": {"egress": {"delay": 80_000}},
            "bandwidth": {"ingressRate": 10**7},
        }
        record["cnihook"] = {**record.get("cnihook", {}), "policy": {"egress": "dns"}}
        host.write(path, json.dumps(record), 0o600)

        lines = shown(host, "graph").splitlines()
        drawings = {
            form: shown(host, "graph", "--format", form) for form in ("svg", "html", "dot", "mermaid")
        }
        (web,) = [
            one
            for one in json.loads(shown(host, "graph", "--format", "json"))["containers"]
            if one["container"] == "web"
        ]
        inspected = shown(host, "inspect", "web")

    assert [line.partition("10.")[2] for line in lines if "eth0" in line] == [
        "30.0.3  [policy]",
        "30.0.2  8080->80/tcp  [policy, quota, emulation]",
        "31.0.3",
    ]
    assert [each["limits"] for each in web["interfaces"]] == [["policy", "quota", "emulation"], []]
    for text in ("policy", "eth0: quota", "eth0: emulation"):
        assert f">{text}</text>" in drawings["svg"]
    for form in ("dot", "mermaid"):
        assert "[policy, quota, emulation]" in drawings[form], form
    for line in ("egress dns", "bandwidth in=10M", "emulation delay=80ms", "quota out=10G"):
        assert f"    {line}\n" in inspected


def test_picture_shows_running_dead_and_deleted_containers(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)
    container = runtime.run("c1")
    assert "c1  eth0  10.22.0.2" in shown(host, "graph")
    container.kill()
    assert "c1  dead  eth0  10.22.0.2" in shown(host, "graph")
    assert "container dead" in shown(host, "graph", "--format", "svg")
    runtime.delete("c1")
    assert "1 network, 0 containers" in shown(host, "graph")


@pytest.mark.parametrize("number", [0, 1, 20, 200])
def test_boxes_of_containers_do_not_overlap(host: Host, number: int) -> None:
    """No box overlaps another or the edge, and the picture has about the shape of a screen."""
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


def test_svg_and_html_contain_names_addresses_and_ports(host: Host) -> None:
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


def test_page_loads_nothing_from_the_network(host: Host) -> None:
    """The page contains no reference, and its content security policy forbids loading."""
    with populated(host):
        text = shown(host, "graph", "--format", "html")

    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(link|img|iframe|script [^>]*src)|@import|url\(", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("number", [0, 1, 20, 200])
def test_search_and_details_work_in_a_browser(host: Host, tmp_path: Path, number: int) -> None:
    """The search hides what does not match; the focus shows details.  An added script acts as the reader."""
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
    result = subprocess.run(["chromium", *argv, str(page)], capture_output=True, text=True, timeout=60)

    assert re.findall(r'<span id="found">([^<]*)', result.stdout) == [f"{min(number, 1)} of {number}"]
    assert len(re.findall(r'<g class="container[^"]*\baway\b', result.stdout)) == max(number - 1, 0)
    for classes, ids, later in re.findall(
        r'<\w+(?: class="([^"]*)")? [^>]*?data-of="([^"]*)"([^>]*)', result.stdout
    ):
        assert ("away" in classes + later) is (last not in ids.split())
    about = result.stdout.partition('<div id="about"')[2].partition("</div>")[0]
    assert (f"<b>{last}</b>" in about and re.search(r"10\.4[012]\.0\.\d+", about) is not None) is bool(
        number
    )
    assert "Uncaught" not in result.stderr


def test_text_of_a_configuration_is_escaped(host: Host) -> None:
    """A file in net.d can contain anything.  None of it may become markup or a terminal command."""
    evil = "</script><b a='\"&\\\x1b[31m>"
    configure(host, bridge("front", "10.30.0.0/24", bridge=evil))

    for form in ("svg", "html", "dot", "mermaid", "text"):
        text = shown(host, "graph", "--format", form)
        assert "\x1b" not in text
        if form in ("svg", "html"):
            assert "<b a" not in text and text.count("</script>") == (form == "html")
    ElementTree.fromstring(shown(host, "graph", "--format", "svg"))


def test_graphviz_reads_the_dot_format(host: Host) -> None:
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


def test_file_suffix_selects_the_format(host: Host) -> None:
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
        picture = json.loads(host.read("/run/.host/picture.json"))
    assert [one["container"] for one in picture["containers"]] == ["db", "job", "web"]


def test_png_is_written_with_rsvg_convert(host: Host) -> None:
    need("rsvg-convert")
    configure(host, FRONT)

    shown(host, "graph", "-o", "/run/.host/picture.png")
    assert (host.root / "run/.host/picture.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_png_without_rsvg_convert_names_the_package(host: Host) -> None:
    hide(host, "rsvg-convert")
    result = show(host, "graph", "--format", "png")

    assert (result.returncode, result.stdout) == (1, "")
    assert "rsvg-convert" in result.stderr and "apt-get install librsvg2-bin" in result.stderr


def test_file_that_cannot_be_written_is_named(host: Host) -> None:
    result = show(host, "graph", "-o", "/nosuch/picture.svg")
    assert (result.returncode, result.stderr) == (
        1, "cnihook: graph: /nosuch/picture.svg: No such file or directory\n"
    )  # fmt: skip


def test_network_without_containers_is_shown_beside_damaged_file(host: Host) -> None:
    configure(host, FRONT)
    host.write(f"{NET_D}/20-broken.conf", "{")

    assert "front  bridge" in shown(host, "graph")
