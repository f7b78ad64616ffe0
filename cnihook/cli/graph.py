# SPDX-License-Identifier: Apache-2.0
"""cnihook graph: a picture of a host's networks."""

import os
import shutil
import subprocess
import sys

from cnihook.cli import arguments, graph_html, graph_svg, graph_text, terminal
from cnihook.cli.arguments import Parser
from cnihook.cli.graph_model import Picture, details, take
from cnihook.settings import Settings
from cnihook.spec.errors import PLUGIN_NOT_AVAILABLE, CniError

DESCRIPTION = """\
Draw the networks of this host: the way out, bridges, containers, addresses, published ports.  A tree in the
terminal; in a file an SVG, a PNG, an HTML page that needs nothing else (search, details), or what Graphviz
(DOT) and Mermaid draw, by the file's ending: .svg .png .html .dot .mmd .json .txt
"""

_ENDINGS = {
    ".svg": "svg", ".png": "png", ".html": "html", ".htm": "html", ".dot": "dot", ".gv": "dot",
    ".mmd": "mermaid", ".mermaid": "mermaid", ".json": "json", ".txt": "text",
}  # fmt: skip


def parser() -> Parser:
    made = Parser("graph", DESCRIPTION)
    made.add_argument("-o", "--output", metavar="FILE", help="write it to a file")
    forms = list(dict.fromkeys(_ENDINGS.values()))
    made.add_argument("--format", choices=forms, help="(default: by FILE's ending, else text)")
    made.add_conf_folder()
    return made


def main(argv: list[str]) -> int:
    made = parser()
    found = made.parse_args(argv)
    form = found.format
    if not form:
        form = _ENDINGS.get(os.path.splitext(found.output)[1].lower()) if found.output else "text"
        if not form:
            made.error(f"argument --output: {found.output} has none of the endings {' '.join(_ENDINGS)}")
    if form == "png" and not found.output and terminal.is_terminal():
        made.error("argument --format: a PNG is nothing to a terminal; --output FILE")
    picture = take(found.conf_dir or Settings.from_environment(os.environ).conf_folder)
    content = _drawn(picture, form, to_stdout=not found.output)
    if found.output:
        with open(found.output, "wb") as file:
            file.write(content)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
    return 0


def _drawn(picture: Picture, form: str, *, to_stdout: bool) -> bytes:
    if form == "png":
        return _png(graph_svg.svg(picture))
    if form == "text":
        width = terminal.width() if to_stdout else sys.maxsize
        style = terminal.style() if to_stdout else terminal.Style(False)
        unicode = terminal.draws_lines() if to_stdout else True
        lines = graph_text.tree(picture, style, width, unicode)
        return "".join(f"{line}\n" for line in lines).encode(errors="replace")
    if form == "json":
        return f"{arguments.as_json(details(picture))}\n".encode()
    draw = {
        "svg": graph_svg.svg, "html": graph_html.html, "dot": graph_text.dot, "mermaid": graph_text.mermaid
    }  # fmt: skip
    return draw[form](picture).encode()


def _png(svg: str) -> bytes:
    program = shutil.which("rsvg-convert")
    if not program:
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            "a PNG needs the program rsvg-convert, which is not installed",
            "`apt-get install librsvg2-bin`; SVG and HTML need nothing",
        )
    done = subprocess.run([program, "--zoom=2", "--format=png"], input=svg.encode(), capture_output=True)
    if done.returncode != 0:
        raise OSError(0, f"rsvg-convert: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
