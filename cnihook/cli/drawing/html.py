# SPDX-License-Identifier: Apache-2.0
"""A picture of networks as one page that needs no other file: the SVG, a search, and details of what is
under the pointer.
"""

import json
from html import escape

from cnihook.cli.drawing import svg
from cnihook.cli.drawing.model import Picture, details
from cnihook.cli.shared.terminal import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; font: 14px system-ui, "DejaVu Sans", sans-serif; background: #fff; color: #0f172a; }}
header {{ position: sticky; top: 0; display: flex; gap: 1em; align-items: center; padding: .6em 20px;
  background: inherit; border-bottom: 1px solid #cbd5e1; z-index: 1; }}
label {{ margin-left: auto; white-space: nowrap; }}
#search {{ font: inherit; padding: .35em .7em; width: min(28em, 50vw); border: 1px solid #94a3b8;
  border-radius: 6px; background: inherit; color: inherit; }}
#found {{ color: #64748b; }}
svg {{ display: block; max-width: 100%; height: auto; }}
.whole svg {{ max-width: none; }}
.away {{ opacity: .13; }}
.container, .network {{ cursor: default; }}
.container:hover .card, .container:focus .card {{ stroke: #0f172a; stroke-width: 2; }}
#about {{ position: fixed; display: none; max-width: 30em; padding: .7em 1em; border: 1px solid #94a3b8;
  border-radius: 8px; background: #fff; box-shadow: 0 4px 16px #0003; pointer-events: none; z-index: 2; }}
#about b {{ word-break: break-all; }}
#about td {{ padding: .1em .8em .1em 0; vertical-align: top; }}
@media (prefers-color-scheme: dark) {{
  body, #about {{ background: #0f172a; color: #e2e8f0; }}
  svg .page {{ fill: #0f172a; }} svg text {{ fill: #cbd5e1; }} svg .title, svg .name {{ fill: #f1f5f9; }}
  svg .dim {{ fill: #94a3b8; }} svg .card {{ fill: #1e293b; }} svg .box {{ fill: #172033; }}
  svg .pill {{ fill: #334155; }} svg .port {{ fill: #f1f5f9; }}
  .container:hover .card, .container:focus .card {{ stroke: #f1f5f9; }}
}}
</style>
</head>
<body>
<header><input id="search" type="search" placeholder="container, address, port, network" \
aria-label="search" autofocus><span id="found"></span>
<label><input type="checkbox" id="whole"> full size</label></header>
{svg}
<div id="about"></div>
<script>
"use strict";
const picture = {data};
const about = document.getElementById("about");
const cards = [...document.querySelectorAll(".container")];

function search(text) {{
  const words = text.toLowerCase().split(/\\s+/).filter(Boolean);
  const contains = (part) => words.every((word) => part.dataset.search.toLowerCase().includes(word));
  const found = new Set();
  for (const card of cards) {{
    const matches = contains(card);
    card.classList.toggle("away", !matches);
    if (matches) found.add(card.dataset.id);
  }}
  for (const part of document.querySelectorAll("[data-of]")) {{
    const matches = part.dataset.of.split(" ").some((id) => found.has(id));
    part.classList.toggle("away", words.length > 0 && !matches && !(part.dataset.search && contains(part)));
  }}
  document.getElementById("found").textContent = words.length ? `${{found.size}} of ${{cards.length}}` : "";
}}

function row(table, ...words) {{
  const line = table.insertRow();
  for (const word of words) line.insertCell().textContent = word;
}}

function describe(target) {{
  about.replaceChildren();
  const name = document.createElement("b");
  const table = document.createElement("table");
  if (target.dataset.id !== undefined) {{
    const one = picture.containers.find((each) => each.container === target.dataset.id);
    name.textContent = one.container;
    row(table, "state", one.state + (one.age ? ", " + one.age : ""));
    if (one.pid) row(table, "process", one.pid);
    for (const each of one.interfaces) {{
      row(table, each.ifname, [each.network, ...each.addresses].join("  "));
      for (const port of each.ports) row(table, "", port);
      if (each.limits.length) row(table, "", each.limits.join(", "));
    }}
  }} else {{
    const one = picture.networks.find((each) => each.name === target.dataset.network);
    name.textContent = one.name;
    row(table, "kind", [one.kind, one.link].join(" "));
    if (one.subnets.length) row(table, "subnets", one.subnets.join("  "));
    if (one.gateways.length) row(table, "gateway", one.gateways.join("  "));
    row(table, "way out", one.uplinks.length ? `${{one.out}}, by ${{one.uplinks.join(", ")}}` : one.out);
    row(table, "containers", one.containers);
    if (one.hosts.length) row(table, "other hosts", one.hosts.length);
  }}
  about.append(name, table);
}}

function place(x, y) {{
  about.style.display = "block";
  about.style.left = Math.max(0, Math.min(x + 16, innerWidth - about.offsetWidth - 8)) + "px";
  about.style.top = Math.max(0, Math.min(y + 16, innerHeight - about.offsetHeight - 8)) + "px";
}}

for (const target of document.querySelectorAll(".container, .network")) {{
  target.querySelectorAll("title").forEach((title) => title.remove());
  target.setAttribute("tabindex", "0");
  target.addEventListener("mouseenter", () => describe(target));
  target.addEventListener("mousemove", (event) => place(event.clientX, event.clientY));
  target.addEventListener("mouseleave", () => {{ about.style.display = "none"; }});
  target.addEventListener("focus", () => {{
    const box = target.getBoundingClientRect();
    describe(target);
    place(box.right, box.top);
  }});
  target.addEventListener("blur", () => {{ about.style.display = "none"; }});
}}
document.getElementById("whole").addEventListener("change", (event) => {{
  document.body.classList.toggle("whole", event.target.checked);
}});
document.getElementById("search").addEventListener("input", (event) => search(event.target.value));
</script>
</body>
</html>
"""


def _printable(value: "Any") -> "Any":
    """Return `value` with each text in it as the drawing shows it."""
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def html(picture: Picture) -> str:
    data = json.dumps(_printable(details(picture))).replace("<", "\\u003c")  # nothing may end the script
    return _PAGE.format(title=escape(printable(picture.title)), svg=svg.svg(picture), data=data)
