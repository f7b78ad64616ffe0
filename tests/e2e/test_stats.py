# SPDX-License-Identifier: Apache-2.0
"""cnihook stats: its counts compared with those of other programs, and the live view."""

import json
import re
import time
from typing import Any

from tests.support.commands.listings import Screen, attach, plain, populated, shown, shown_json
from tests.support.host.host import Container, Host
from tests.support.host.namespace import end
from tests.support.runtimes.oci import MYNET, Runtime, configure, wait_for
from tests.support.skip import need

AMOUNT = 100_000_000


def of(host: Host, name: str, *words: str) -> Any:
    (attachment,) = [one for one in shown_json(host, "stats", *words) if one["container"] == name]
    return attachment


def test_bytes_agree_with_those_of_iperf3(host: Host, runtime: Runtime) -> None:
    """The difference is below 2 %, which headers account for."""
    need("iperf3")
    configure(host, MYNET)
    container = runtime.run("c1")
    before = of(host, "c1")
    with host.popen("iperf3", "--server", "--one-off", "--bind", "10.22.0.1") as server:
        wait_for(lambda: ":5201" in host.run("ss", "-Hltn").stdout, "iperf3")
        words = ["--client", "10.22.0.1", "--bytes", str(AMOUNT), "--window", "128K", "--json"]
        counted = json.loads(container.run("iperf3", *words).stdout)["end"]
        server.wait(30)
        end(server)
    iproute = [container.ip("-s", "link", "show", "dev", "eth0")[0]["stats64"]]
    after = of(host, "c1")
    iproute.append(container.ip("-s", "link", "show", "dev", "eth0")[0]["stats64"])

    # The data in the small window at the end was sent, and perhaps not received.
    received, sent = (counted[name]["bytes"] for name in ("sum_received", "sum_sent"))
    assert AMOUNT * 0.98 <= received <= after["tx_bytes"] - before["tx_bytes"] <= sent * 1.02
    for way in ("rx", "tx"):
        for key, name in (("packets", "packets"), ("drops", "dropped"), ("bytes", "bytes")):
            first, second = (counts[way][name] for counts in iproute)
            assert first <= after[f"{way}_{key}"] <= second


def test_each_attachment_has_its_own_counts(host: Host) -> None:
    with populated(host) as containers:
        before = {one["network"]: one for one in shown_json(host, "stats", "web")}
        containers["web"].run("ping", "-c3", "-i0.01", "-s1000", "10.30.0.1")
        after = {one["network"]: one for one in shown_json(host, "stats", "web")}

    assert after["front"]["tx_bytes"] - before["front"]["tx_bytes"] >= 3 * 1042
    assert after["back"]["tx_bytes"] - before["back"]["tx_bytes"] < 1042


def test_rates_are_measured_if_an_interval_is_given(host: Host) -> None:
    with populated(host) as containers:
        assert "rx_bytes_per_second" not in of(host, "job")
        with sending(containers["job"]) as _:
            wait_for(lambda: rates(host), "packets within an interval")
            wait_for(lambda: int(table(host)[1][4]), "bytes within an interval")
            assert table(host)[0][3:5] == ["RX/s", "TX/s"]


def rates(host: Host) -> bool:
    """Return True if packets of 1400 bytes, with headers, were sent within an interval."""
    counts = of(host, "job", "--interval", "0.5")
    rate, packets = counts["tx_bytes_per_second"], counts["tx_packets_per_second"]
    return (
        bool(packets) and rate / packets > 500
    )  # some are smaller, for example those of neighbor discovery


def table(host: Host) -> list[list[str]]:
    """Return the columns of the header and of the line."""
    return [line.split() for line in shown(host, "stats", "job", "--interval", "0.5").splitlines()]


class sending:
    """A container that keeps sending to its gateway."""

    def __init__(self, container: Container) -> None:
        self._container = container

    def __enter__(self) -> None:
        self._process = self._container.popen("ping", "-i0.01", "-s1400", "10.30.0.1")
        time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        end(self._process)


def test_live_view_continues_until_q(host: Host) -> None:
    """The busiest container is first; starts and ends are shown, and the screen is restored."""
    with populated(host) as containers:
        with sending(containers["job"]):
            screen = Screen(host, 100, "stats", "--interval", "0.1")
            screen.wait_for(r"CONTAINER[^\n]*\n\s*job ")
        screen.wait_for("4 attached")
        containers["db"].destroy()
        screen.wait_for("3 attached")
        attach(host, "late", "back")
        screen.wait_for("late")
        screen.type("q")
        text = screen.end()

    assert screen.process.returncode == 0
    assert text.startswith("\x1b[?1049h") and text.endswith("\x1b[?1049l")
    frames = [plain(frame).splitlines() for frame in text.split("\x1b[H")[2:]]
    assert max(len(frame) for frame in frames) <= 24
    assert max(len(line) for frame in frames for line in frame) <= 100


def test_live_view_ends_with_ctrl_c_and_restores_the_screen(host: Host) -> None:
    with populated(host):
        screen = Screen(host, 40, "stats", "web")
        screen.wait_for("web")
        screen.type("\x03")
        text = screen.end()
    assert screen.process.returncode == 130
    assert text.endswith("\x1b[?1049l") or text.endswith("\x1b[?1049l^C"), repr(text[-90:])
    assert "Traceback" not in text


def test_once_prints_a_table_on_a_terminal(host: Host) -> None:
    with populated(host):
        screen = Screen(host, 100, "stats", "--once", "web")
        lines = plain(screen.end()).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["CONTAINER", "NETWORK", "IFNAME"], ["web", "front", "eth0"], ["web", "back", "eth1"],
    ]  # fmt: skip


def test_dead_container_has_no_count(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)
    container = runtime.run("c1")
    container.kill()

    assert shown_json(host, "stats") == []


def test_totals_of_a_finished_container_are_in_its_log(host: Host, runtime: Runtime) -> None:
    """The log is compared with the counts of `ip` before the end; the kernel may add a few packets."""
    configure(host, MYNET)
    container = runtime.run("c1")
    container.run("ping", "-c5", "-i0.01", "-s1000", "10.22.0.1")
    before = container.ip("-s", "link", "show", "dev", "eth0")[0]["stats64"]
    runtime.delete("c1")

    (line,) = [line for line in shown(host, "logs", "c1").splitlines() if "detached from mynet" in line]
    totals = re.search(
        r"eth0: received (\d+) bytes in (\d+) packets, sent (\d+) in (\d+), dropped (\d+)$", line
    )
    assert totals
    for number, (way, unit) in enumerate(
        (("rx", "bytes"), ("rx", "packets"), ("tx", "bytes"), ("tx", "packets")), 1
    ):
        least = before[way][unit]
        assert least <= int(totals[number]) <= least + (500 if unit == "bytes" else 5)
    assert before["tx"]["bytes"] >= 5 * 1042


def test_lost_namespace_has_no_totals(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)
    runtime.run("c1")
    host.run("umount", "/run/netns/c1")
    runtime.delete("c1")

    assert "detached from mynet, eth0\n" in shown(host, "logs", "c1")
    host.leaves("dir /run/mount")  # made by umount


def test_logs_of_the_last_hundred_are_kept(host: Host, runtime: Runtime) -> None:
    configure(host, MYNET)
    host.run("mkdir", "-p", "/var/log/cnihook")
    for number in range(100):
        host.write(f"/var/log/cnihook/old{number:03}", "long ago\n")
    host.run("touch", "--date=yesterday", "/var/log/cnihook/old050")
    runtime.run("c1")
    runtime.delete("c1")

    kept = host.listdir("/var/log/cnihook")
    assert len(kept) == 100 and "c1" in kept and "old050" not in kept
