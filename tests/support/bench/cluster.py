# SPDX-License-Identifier: Apache-2.0
"""The rows about a network of several hosts: no start asks etcd, so it does not matter whether etcd runs."""

import json
import os
import shutil
import time
from collections.abc import Callable

from tests.support.bench.machine import CHECKOUT, CLUSTER, FOLDERS, Daemon, FailedError, perform, run
from tests.support.bench.programs import Hook
from tests.support.bench.session import VERBS, Run, attach, lifetime, turns

ALIVE, DEAD = "etcd alive", "etcd dead"
_ADDRESS = "172.16.99.1"
_URL = f"http://{_ADDRESS}:2379"
_STATUS = f"/run/cnihook/cluster/{CLUSTER}.json"
_PATIENCE = 30  # seconds


class _Host(Hook):
    """A host that has joined a network, with etcd and the agent, beside which containers start."""

    def __init__(self, label: str) -> None:
        super().__init__(label, CHECKOUT)
        self.machine.enter()
        run("ip", "link", "add", "under0", "type", "bridge")
        run("ip", "address", "add", f"{_ADDRESS}/24", "dev", "under0")
        run("ip", "link", "set", "under0", "up")
        with open("/etc/machine-id", "w") as file:  # of an overlay
            file.write(f"{1:032x}\n")
        os.makedirs(FOLDERS[CLUSTER])
        listen = [f"--{what}-client-urls={_URL}" for what in ("listen", "advertise")]
        self._etcd = Daemon(
            "etcd", "--data-dir=/run/etcd", *listen, f"--listen-peer-urls=http://{_ADDRESS}:2380"
        )
        self._wait("etcd", self._is_there)
        net = ("--subnet", "10.97.0.0/16", "--block", "20", "--transport", "none")
        self._cluster("init", *net)
        self._cluster("join")
        self._agent = Daemon(*self.command, "agent")
        self._wait("the agent", lambda: self._is_connected() is True)
        if label == DEAD:
            self._etcd.end()
            self._wait("the end of etcd", lambda: self._is_connected() is False)

    def _cluster(self, command: str, *options: str) -> None:
        argv = (*self.command, "cluster", command, CLUSTER, *options, "--etcd", _URL)
        run(*argv, NETCONFPATH=FOLDERS[CLUSTER])

    def _is_there(self) -> bool:
        try:
            run("curl", "-sf", "--max-time", "1", f"{_URL}/health")
        except FailedError:
            return False
        return True

    def _is_connected(self) -> "bool | None":
        try:
            with open(_STATUS) as file:
                return bool(json.load(file)["connected"])
        except FileNotFoundError:
            return None

    def _wait(self, what: str, is_true: "Callable[[], bool]") -> None:
        deadline = time.monotonic() + _PATIENCE
        while not is_true():
            if time.monotonic() > deadline:
                raise FailedError(f"{what}: not seen in {_PATIENCE} s")
            time.sleep(0.02)

    def end(self) -> None:
        self._agent.end()
        self._etcd.end()
        super().end()


def starts(session: Run) -> None:
    """Measure ADD and DEL beside another container; two hosts take turns, one of them with a dead etcd."""
    rows = {verb: session.results.row(CLUSTER, verb, beside=ALIVE) for verb in VERBS}
    if not shutil.which("etcd"):
        for row in rows.values():
            row[ALIVE].failure = "etcd is not installed"
        return
    hosts = [_Host(label) for label in (ALIVE, DEAD)]
    for host in hosts:
        attach(host, "stays", CLUSTER, range(0))
    for program, counts in turns(hosts, session.rounds):
        costs = lifetime(program, CLUSTER, range(0), perform)
        for row, cost in zip(rows.values(), costs, strict=True):
            if counts:
                row[program.label].add(cost)
    for host in hosts:
        host.end()
