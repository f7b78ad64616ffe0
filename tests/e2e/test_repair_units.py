# SPDX-License-Identifier: Apache-2.0
"""The units of systemd that call `cnihook repair` and `cnihook gc`."""

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.commands.repair import WEB, WebContainer, detach, repair
from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT
from tests.support.runtimes.oci import CNIHOOK, configure, wait_for
from tests.support.services.firewalld import Firewalld
from tests.support.skip import need

UNITS = sorted((CHECKOUT / "cnihook" / "systemd").glob("cnihook-*"))


def commands(name: str, host: Host) -> list[str]:
    """Return what a unit executes, split as systemd does, with the cnihook under test."""
    text = (CHECKOUT / "cnihook" / "systemd" / name).read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart=").replace("/usr/local/bin/cnihook", CNIHOOK))


def test_units_are_valid(tmp_path: Path) -> None:
    need("systemd-analyze")
    assert len(UNITS) == 13
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/local/bin/cnihook", "/bin/true"))
    process = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["repair", "gc", "resolv-conf"])
def test_units_run_existing_commands(host: Host, name: str) -> None:
    outcome = host.run(*commands(f"cnihook-{name}.service", host))

    assert (outcome.stdout, outcome.stderr) == ("", "")


def test_reload_of_firewalld_is_repaired(host: Host) -> None:
    """`firewall-cmd --reload` removes containers from their zone, and systemd does not notice it."""
    need("busctl")
    configure(host, WEB)
    host.leaves("dir /run/cni", "dir /run/cni/tuning")
    web = WebContainer(host, host.outside(), "c1")
    firewalld = Firewalld(host)
    assert "not in zone trusted" in "".join(repair(host))
    assert web.works() and firewalld.sources() == ["10.22.0.2/32"]
    with host.popen(*commands("cnihook-firewalld.service", host)) as listening:
        for attempt in range(10):  # busctl does not report that it listens
            firewalld.reload()
            try:
                wait_for(firewalld.sources, "the container's place in its zone", timeout=2 + attempt)
                break
            except AssertionError:
                assert attempt < 9 and listening.poll() is None
        assert web.works()
        listening.kill()
    detach(web)
    firewalld.stop()
