# SPDX-License-Identifier: Apache-2.0
"""The pages of cnihook/pages: their commands run on a throw-away host, and their output is compared.

In a page, each `## ` heading begins a part.  `## Before you begin` runs before each part.  In a block

    ```console
    # a command, which may go on behind a \\, or until the end of its << 'EOF'
    what it prints
    ...
    ```

every line of output is compared, but `...` stands for any number of lines, or for any part of a line.
Values that differ from run to run are compared by their kind: VOLATILE.  Other blocks are not run.  A
comment of `<!-- run`, commands and `-->` is run and not shown: it brings the machine into the state that the
part is about.  For docker-run, a docker daemon with the image busybox runs on the host.  A part that
installs cnihook must remove all of it again.
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.commands.listings import INSTALLED
from tests.support.host.host import Host
from tests.support.host.machine_files import changes, overlay
from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.docker import Docker
from tests.support.runtimes.oci import LEAVES, make_rootfs, need_cgroups
from tests.support.skip import SEARCH, need, skip_or_fail

PAGES = CHECKOUT / "cnihook" / "pages"
PLACE = "/run/.host/page"
PROGRAMS = ("runc", "busybox", "ip", "nft", "iptables", "tc", "ss", "ping", "tcpdump", "dnsmasq", "podman")
SERVE = "/srv"  # the folder of the pages' bundles: a file system that ends with the host

STAYS = [
    f"mount {SERVE}",
    *("dir /run/lock", "file /run/lock/netavark.lock", "dir /run/containers*"),  # podman's
    *("file /etc/cni/net.d/10-front.conflist", "file /etc/cni/net.d/cni.lock"),  # the second is podman's
    *("* /run/cni", "* /run/cni/dhcp.sock", "process *dhcp-keeper*"),  # the process ends by itself, in 2 s
    "file /run/cnihook/log/*",  # of a container that failed
    *("dir /etc/containers*", "dir /etc/cnihook*", "dir /var/lib/cnihook*", "file /etc/resolv.conf"),
]

VOLATILE = [
    ("MAC", r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b"),
    ("LINK-LOCAL", r"\bfe80::[0-9a-f:]+"),
    ("VETH", r"\bveth[0-9a-f]+\b"),
    ("IFB", r"\bbwp[0-9a-f]+\b"),
    ("@if", r"@if\d+"),
    ("INDEX: ", r"^\d+: "),
    ("id ID", r"\bid \d+"),
    ("ID", r"\bpriv-[0-9a-f]{12}\b"),
    ("host HOST: ", r"^host \S+: "),
    ("PID ", r"\b\d+ +(?=(?:attached|dead)\b)"),
    ("pid PID", r"\bpid \d+"),
    ("CLOCK", r"\b(?:\d{4}-\d\d-\d\d[ T])?\d\d:\d\d:\d\d(?:\.\d+)?(?:[Z+]\S*)?"),
    ("TIME", r"\b\d+(?:\.\d+)?(?:/\d+(?:\.\d+)?)* ?m?s\b"),
    (" ", r"[ \t]+"),
]

# Each run has its own cgroups, because another process may run the same page.  The wrapper also waits until
# the web server listens: runc returns before, and a script is faster than a user.
RUNC = """\
#!/bin/sh
for config in {serve}/*/config.json; do
  [ -e "$config" ] || continue
  own="\\"cgroupsPath\\": \\"/{unique}-$(basename "$(dirname "$config")")\\","
  sed -i -e 's|"cgroupsPath": "[^"]*",||' -e "s|\\"linux\\": {{|&$own|" "$config"
done
{runc} "$@" || exit
[ "$1" = run ] || exit 0
for container; do :; done
for _ in $(seq 250); do
  ! ip netns exec "$container" ss -Hltn | grep -q :80 || break
  sleep 0.02
done
"""


class Step:
    def __init__(self, command: str, hidden: bool) -> None:
        self.command = command
        self.hidden = hidden
        self.expected: list[str] = []


class Part:
    def __init__(self, page: str, title: str) -> None:
        self.page = page
        self.title = title
        self.steps: list[Step] = []

    def __repr__(self) -> str:
        return f"{self.page}: {self.title}"

    def has(self, word: str) -> bool:
        return any(re.search(rf"\b{word}\b", step.command) for step in self.steps)


def parts(page: str) -> list[Part]:
    """Return the parts of a page that have steps, each with the steps that come before it."""
    all_parts: list[Part] = []
    before: list[Step] = []
    for section in re.split(r"^## ", (PAGES / f"{page}.md").read_text(), flags=re.M)[1:]:
        title, _, text = section.partition("\n")
        part = Part(page, title)
        steps = list(_steps(text))
        part.steps = [*before, *steps]
        if title == "Before you begin":
            before = part.steps
        elif steps:
            all_parts.append(part)
    return all_parts


def _steps(text: str) -> Iterator[Step]:
    blocks = re.finditer(r"^```console\n(.*?)^```$|^<!-- run\n(.*?)^-->$", text, flags=re.M | re.S)
    for block in blocks:
        if block[2] is not None:
            yield Step(block[2], hidden=True)
            continue
        step = None
        lines = block[1].splitlines()[::-1]
        while lines:
            line = lines.pop()
            if not line.startswith("# "):
                assert step, f"no command before {line!r}"
                step.expected.append(line)
                continue
            command = [line.removeprefix("# ")]
            if here := re.search(r"<< '?(\w+)'?", command[0]):
                while command[-1] != here[1]:
                    command.append(lines.pop())
            while command[-1].endswith("\\"):
                command.append(lines.pop())
            if step:
                yield step
            step = Step("\n".join(command), hidden=False)
        if step:
            yield step


def run(part: Part, host: Host, variables: Mapping[str, str] | None = None) -> list[str]:
    """Run all steps in one shell, as a user of the page does.  Returns the output of each.

    `variables`: additional ones of the environment.
    """
    need(*(name for name in PROGRAMS if part.has(name)))
    need_cgroups()
    if CHECKOUT.is_relative_to(SERVE):
        skip_or_fail(f"the pages use {SERVE}; move the checkout")
    runc = shutil.which("runc", path=SEARCH)
    unique = f"cnihook-page-{uuid.uuid4().hex[:12]}"
    host.leaves(*LEAVES, *STAYS)
    host.outside()
    host.run("busybox", "mount", "-t", "tmpfs", "tmpfs", SERVE)
    host.write(f"{PLACE}/runc", RUNC.format(serve=SERVE, unique=unique, runc=runc), 0o755)
    script = ["exec < /dev/null > output 2>&1; cd /srv"]
    for step in part.steps:
        script += [f"printf '\\036'\n{step.command.rstrip()}", "printf '\\037%s' $?"]
    host.write(f"{PLACE}/script", "\n".join(script) + "\n")
    path = f"{PLACE}:{Path(INSTALLED).parent}:{CHECKOUT}/scripts:{SEARCH}"
    env = base_environment() | {"PATH": path, "LC_ALL": "C.UTF-8", "COLUMNS": "110", "HOME": "/root"}
    env["PODMAN_IGNORE_CGROUPSV1_WARNING"] = "1"  # podman 5 prints it on stderr
    try:
        with _installation(part, host):
            # No pipes: a program that a page leaves running would keep them open.
            host.run("bash", "script", cwd=PLACE, env=env | dict(variables or {}), timeout=200)
    finally:
        for version in ("", "*/"):
            for folder in Path("/sys/fs/cgroup").glob(f"{version}{unique}*"):
                if not (folder / "cgroup.procs").read_text():
                    os.rmdir(folder)
    outputs = []
    for step, text in zip(part.steps, host.read(f"{PLACE}/output").split("\036")[1:], strict=True):
        output, _, status = text.rpartition("\037")
        assert not step.hidden or status == "0", f"{step.command}\n{output}"
        outputs.append(output)
    return outputs


@contextmanager
def docker(host: Host, folder: Path) -> Iterator[dict[str, str]]:
    """Run a docker daemon on the host.  Yields the variables by which docker's client finds it."""
    daemon = Docker(host, folder, make_rootfs(folder / "rootfs"))
    places = {"data-root": f"{folder}/data", "exec-root": f"{folder}/exec"}
    host.write("/etc/docker/daemon.json", json.dumps(places))
    host.leaves("dir /run/containerd*", "file /run/containerd*", "dir /run/mount")
    host.save_state()
    try:
        yield {name: daemon.env[name] for name in ("DOCKER_HOST", "DOCKER_CONFIG")}
    finally:
        daemon.close()


@contextmanager
def _installation(part: Part, host: Host) -> Iterator[None]:
    """Let a part write below /usr; assert that nothing of it is left."""
    if not any("cnihook install" in step.command for step in part.steps):
        yield
        return
    overlay(host, "/usr")
    host.leaves("dir /etc/fish*", "dir /etc/systemd*", "* /run/systemd*")  # folders of the machine
    before = changes(host, "/usr", "/etc")
    yield
    assert changes(host, "/usr", "/etc") == before


def differs(expected: list[str], output: str) -> bool:
    pattern = ""
    for line in expected:
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
            continue
        pattern += ".*".join(re.escape(settled(words)) for words in line.split("...")) + "\n"
    actual = "".join(f"{settled(line)}\n" for line in output.splitlines())
    return not re.fullmatch(pattern, actual)


def settled(line: str) -> str:
    """Return the line with values that differ from run to run replaced by their kinds."""
    for kind, pattern in VOLATILE:
        line = re.sub(pattern, kind, line)
    return line.strip()
