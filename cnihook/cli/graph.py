# SPDX-License-Identifier: Apache-2.0
"""cnihook graph: draw the networks of this host."""

import os
import shutil
import subprocess
import sys

from cnihook.cli.drawing import html, text
from cnihook.cli.drawing import svg as svg_drawing
from cnihook.cli.drawing.model import Picture, details, take
from cnihook.cli.shared import arguments, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.runtime.settings import Settings
from cnihook.types.errors import PLUGIN_NOT_AVAILABLE, CniError

DESCRIPTION = """\
Draw the networks of this host: uplinks, bridges, containers, addresses, published ports.

Without FILE, prints a tree.  With FILE, its ending chooses the format:

  .svg .png   a drawing
  .html       one page with search and details, which needs no other file
  .dot .mmd   the input of Graphviz or Mermaid
  .json       all values
  .txt        the tree
"""

_ENDINGS = {
    ".svg": "svg", ".png": "png", ".html": "html", ".htm": "html", ".dot": "dot", ".gv": "dot",
    ".mmd": "mermaid", ".mermaid": "mermaid", ".json": "json", ".txt": "text",
}  # fmt: skip


def parser() -> Parser:
    parser = Parser("graph", DESCRIPTION)
    parser.add_argument("-o", "--output", metavar="FILE", help="write to this file")
    forms = list(dict.fromkeys(_ENDINGS.values()))
    parser.add_argument("--format", choices=forms, help="the format (default: by FILE's ending, else text)")
    parser.add_conf_dir()
    return parser


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    form = options.format
    if not form:
        form = _ENDINGS.get(os.path.splitext(options.output)[1].lower()) if options.output else "text"
        if not form:
            usage.error(f"argument --output: {options.output} has none of the endings {' '.join(_ENDINGS)}")
    if form == "png" and not options.output and terminal.is_terminal():
        usage.error("argument --format: a PNG cannot be shown in a terminal; use --output FILE")
    picture = take(options.conf_dir or Settings.from_environment(os.environ).conf_dir)
    content = _drawn(picture, form, to_stdout=not options.output)
    if options.output:
        with open(options.output, "wb") as file:
            file.write(content)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
    return 0


def _drawn(picture: Picture, form: str, *, to_stdout: bool) -> bytes:
    if form == "png":
        return _png(svg_drawing.svg(picture))
    if form == "text":
        width = terminal.width() if to_stdout else sys.maxsize
        style = terminal.style() if to_stdout else terminal.Style(False)
        unicode = terminal.draws_lines() if to_stdout else True
        lines = text.tree(picture, style, width, unicode)
        return "".join(f"{line}\n" for line in lines).encode(errors="replace")
    if form == "json":
        return f"{arguments.as_json(details(picture))}\n".encode()
    draw = {
        "svg": svg_drawing.svg, "html": html.html, "dot": text.dot, "mermaid": text.mermaid
    }  # fmt: skip
    return draw[form](picture).encode()


def _png(svg: str) -> bytes:
    program = shutil.which("rsvg-convert")
    if not program:
        raise CniError(
            PLUGIN_NOT_AVAILABLE,
            "a PNG needs the program rsvg-convert, which is not installed",
            "`apt-get install librsvg2-bin`; SVG and HTML do not need it",
        )
    process = subprocess.run([program, "--zoom=2", "--format=png"], input=svg.encode(), capture_output=True)
    if process.returncode != 0:
        raise OSError(0, f"rsvg-convert: {process.stderr.decode(errors='replace').strip()}")
    return process.stdout
