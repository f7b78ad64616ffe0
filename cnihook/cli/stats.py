# SPDX-License-Identifier: Apache-2.0
"""cnihook stats: show the traffic of each attachment."""

import time
from collections.abc import Iterator

from cnihook.cli.shared import arguments, containers, listing, live, quotas, table, terminal
from cnihook.cli.shared.arguments import Parser
from cnihook.cli.shared.listing import Row
from cnihook.cli.shared.table import Cell, Column
from cnihook.fast.errors_text import message_with_notes
from cnihook.linux.netns import NetNS
from cnihook.log import warn
from cnihook.runtime import attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cnihook.linux.nft_quota import Quota

DESCRIPTION = """\
Show the bytes and packets that each attachment has received (RX) and sent (TX), as its container counts
them, and the packets that were dropped.  Containers with a quota have a column that shows how much of it is
used.

On a terminal, shows them every second, the busiest first, until q or Ctrl-C.  Elsewhere, or with --once,
prints them once.
"""

EPILOG = """\
If it is printed once, the table has totals only.  With --interval, the command measures for that time, and
prints rates, too.
"""

_COUNTERS = ("rx_bytes", "rx_packets", "rx_drops", "tx_bytes", "tx_packets", "tx_drops")
_PLACES = (0, 1, 3, 8, 9, 11)  # their places in a line of /proc/net/dev
_RATES = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")


class Sample:
    """The counters of one attachment at one time."""

    def __init__(
        self,
        one: Row,
        counters: "dict[str, int]",
        before: "Sample | None",
        limits: "dict[str, Quota]",
    ) -> None:
        self.of = one
        self.quotas = limits  # by the keys of --quota
        self.at = time.monotonic()
        self.counters = counters
        self.rates: dict[str, float] = {}  # per second; empty in the first measurement
        if before:
            elapsed = max(self.at - before.at, 0.001)
            self.rates = {name: max(counters[name] - before.counters[name], 0) / elapsed for name in _RATES}

    def to_json(self) -> "dict[str, Any]":
        fields = {"container": self.of.container, "network": self.of.network, "ifname": self.of.ifname}
        rates = {f"{name}_per_second": round(rate, 1) for name, rate in self.rates.items()}
        limits = {
            key: {"limit": quotas.limit(one), "used": quotas.used(one)} for key, one in self.quotas.items()
        }
        return fields | self.counters | rates | ({"quota": limits} if limits else {})

    @property
    def busy(self) -> float:
        return self.rates.get("rx_bytes", 0) + self.rates.get("tx_bytes", 0)


def parser() -> Parser:
    parser = Parser("stats", DESCRIPTION, EPILOG)
    parser.add_container(nargs="?", default="all")
    parser.add_argument("--once", action="store_true", help="print once, also on a terminal")
    parser.add_argument("--json", action="store_true", help="print once, as JSON")
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=arguments.interval,
        help="time between two measurements (default: 1)",
    )
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    if options.id:
        options.id = containers.on_record(options.id)
    samples = _look(options.id, {}, complaining=True)
    if options.json:
        if options.interval:
            time.sleep(options.interval)
            samples = _look(options.id, samples)
        arguments.print_json([sample.to_json() for sample in samples.values()])
    elif options.once or not terminal.is_terminal():
        if options.interval:
            time.sleep(options.interval)
            samples = _look(options.id, samples)
        table.show(
            *_table(list(samples.values()), rates=bool(options.interval), exact=not terminal.is_terminal())
        )
    else:
        live.show(_screens(options.id, samples), options.interval or 1.0)
    return 1 if listing.complain_of_damaged() else 0


# Looking

_Key = tuple[str, str, str]


def _look(
    container: "str | None", before: "dict[_Key, Sample]", complaining: bool = False
) -> "dict[_Key, Sample]":
    """Return the counters of all attachments.  One that ends during the read is left out."""
    # A named container has to exist at the first read; later it may end.
    listed = listing.of_container(container) if container and complaining else listing.load()
    listed = listing.without_loopback(listed)
    samples = {}
    limits = quotas.by_attachment(listed)
    for one in listed:
        if container not in (None, one.container) or one.state != listing.ATTACHED:
            continue
        try:
            counters = _counters(one)
        except OSError as error:
            if complaining:
                warn(f"stats: container {one.container}, {one.ifname}: {message_with_notes(error)}")
            continue
        key = one.record.identity
        samples[key] = Sample(one, counters, before.get(key), limits.get(key, {}))
    return samples


def _counters(one: Row) -> "dict[str, int]":
    """Return the kernel's counters in the container, where they are right for every kind of interface."""
    namespace = NetNS.open(attachment.live_netns_path(one.record))
    try:
        with namespace.entered(), open("/proc/thread-self/net/dev") as file:
            lines = file.read().splitlines()
    finally:
        namespace.close()
    for line in lines:
        name, _, numbers = line.rpartition(":")
        if name.strip() == one.ifname:
            fields = numbers.split()
            return {counter: int(fields[place]) for counter, place in zip(_COUNTERS, _PLACES, strict=True)}
    raise FileNotFoundError("it has no such interface any more")


# Showing


def _table(samples: "list[Sample]", *, rates: bool, exact: bool) -> "tuple[list[Column], list[list[Cell]]]":
    """Return columns and rows.  `exact`: exact numbers, for programs; otherwise rounded ones."""
    columns = [
        Column("CONTAINER", low=16, names=True),
        Column("NETWORK", low=8, names=True),
        Column("IFNAME", drop=1),
    ]
    columns += [Column(title, right=True) for title in ("RX/s", "TX/s") if rates]
    for title in ("RX", "TX"):
        columns += [Column(title, right=True), Column("PACKETS", right=True, drop=3)]
        columns += [Column("DROPPED", right=True, drop=2)]
    has_quota = any(sample.quotas for sample in samples)
    columns += [Column("QUOTA")] if has_quota else []
    number = str if exact else amount
    rows = []
    for sample in samples:
        row = [Cell(sample.of.shown), Cell(sample.of.network), Cell(sample.of.ifname)]
        for name in ("rx_bytes", "tx_bytes") if rates else ():
            rate = sample.rates.get(name)
            row.append(Cell("" if rate is None else number(round(rate)), "green" if rate else "dim"))
        for name in _COUNTERS:
            count = sample.counters[name]
            row.append(Cell(number(count), "red" if count and name.endswith("drops") else ""))
        if has_quota:
            limits = sample.quotas.items()
            text = ",".join(f"{key}={_of_quota(one, number)}" for key, one in limits)
            row.append(Cell(text, "red" if any(one.used >= one.limit for _, one in limits) else ""))
        rows.append(row)
    return columns, rows


def _of_quota(one: "Quota", number: "Callable[[int], str]") -> str:
    limit = quotas.limit(one)
    return number(quotas.used(one)) + ("" if limit is None else f"/{number(limit)}")


def amount(number: float) -> str:
    """Return a number in at most six characters: 999, 12.3k, 1.2M."""
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000 or unit == "T":
            break
        number /= 1000
    return f"{number:.1f}{unit}" if unit and number < 100 else f"{number:.0f}{unit}"


def _screens(container: "str | None", samples: "dict[_Key, Sample]") -> "Iterator[list[str]]":
    while True:
        yield _screen(container, samples)
        samples = _look(container, samples)


def _screen(container: "str | None", samples: "dict[_Key, Sample]") -> "list[str]":
    columns, rows = terminal.size()
    shown = sorted(samples.values(), key=lambda sample: -sample.busy)
    style = terminal.style()
    busy = amount(sum(sample.busy for sample in shown))
    head = f"{len(shown)} attached  {busy}B/s  {time.strftime('%H:%M:%S')}"
    body = table.render(*_table(shown, rates=True, exact=False), style, columns)
    if not shown:
        body = ["nothing is attached" + (f" of container {container}" if container else "")]
    room = rows - 2
    if len(body) > room:
        body = body[: room - 1] + [style("more do not fit on the screen: `cnihook stats --once`", "dim")]
    return [style(head, "bold"), *body]
