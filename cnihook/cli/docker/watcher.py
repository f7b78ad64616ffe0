# SPDX-License-Identifier: Apache-2.0
"""
The keeper of one container's network: a process that outlives docker-run, however docker-run ends.

It starts the pause container itself, so that no signal to docker-run can prevent the removal.  Once docker's
client has ended, it checks if the container still runs: --detach, the detach keys, a client that was killed.
If so, it waits for the end of the container's process.  It does not wait on docker, because the daemon may
be restarted.  Then it detaches the networks and removes the pause container.
"""

import json
import os
import select
import signal
import time

from cnihook.cli.docker import pause as pause_container
from cnihook.cli.docker.pause import Docker, DockerError, Pause
from cnihook.container import detach
from cnihook.fast.errors_text import message_with_notes
from cnihook.log import Log
from cnihook.oci.engines import PAUSE_LABEL
from cnihook.process.daemonize import daemonize
from cnihook.runtime.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_FAREWELL = b"."  # docker-run's last message, unless it was killed
_SECOND_LOOK = 1.0  # seconds until `docker restart`, or a start that was under way, is visible
_PATIENCE = 60.0  # seconds to repeat a removal while the daemon does not answer


class Watcher:
    """The keeper as docker-run sees it.  The caller has to call release() in the end."""

    def __init__(self, docker: Docker, name: str, options: list[str], settings: Settings) -> None:
        order, self._orders = os.pipe()
        self._reports, report = os.pipe()
        if os.fork() == 0:
            os.close(self._orders)
            os.close(self._reports)
            _live(docker, name, options, settings, order, report)
        os.close(order)
        os.close(report)
        self._lines = open(self._reports, encoding="utf-8", errors="replace")

    def pause(self) -> Pause:
        """Wait for the pause container.  Raises DockerError."""
        report = json.loads(self._lines.readline() or '{"failure": "it was killed"}')
        if "failure" in report:
            raise DockerError(report["failure"])
        return Pause(report["facts"])

    def release(self) -> None:
        """Let the keeper go on alone: docker's client has ended, or was never started."""
        try:
            os.write(self._orders, _FAREWELL)
        except BrokenPipeError:
            pass  # it has ended: there was nothing to remove
        os.close(self._orders)

    def complaints(self) -> list[str]:
        """Wait until all is removed, or the container runs on without docker-run.

        Returns what could not be removed, a line each.
        """
        reports = map(json.loads, self._lines)  # an interrupted pause() has not read the first one
        return [report["problem"] for report in reports if "problem" in report]


def _live(
    docker: Docker, name: str, options: list[str], settings: Settings, orders: int, reports: int
) -> "NoReturn":
    """Run the keeper process, from its start to its end."""
    try:
        os.chdir("/")
        daemonize(orders, reports)
        _ignore_signals()
        report = _Report(reports)
        try:
            pause = pause_container.start(docker, name, options)
        except Exception as error:
            report.say(failure=message_with_notes(error))
            os._exit(1)
        net = os.stat(f"/proc/{pause.pid}/ns/net")
        report.say(facts=pause.facts)
        farewell = os.read(orders, 1)  # until docker-run closes its end, or dies
        log = Log(pause.id)
        try:
            _outlast(docker, pause, net, report, killed=farewell != _FAREWELL)
        except Exception as error:
            log.failure("watch", error, "of the container")
        _clear(docker, pause, settings, report, log)
    finally:
        os._exit(0)


def _ignore_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, the status of a child is lost


class _Report:
    """The messages to docker-run, while it waits."""

    def __init__(self, end: int) -> None:
        self._end = end

    def say(self, **report: "Any") -> None:
        """Send JSON: the `facts` of the pause container or its `failure`; later, each `problem`."""
        if self._end >= 0:
            try:
                os.write(self._end, f"{json.dumps(report)}\n".encode())
            except OSError:
                pass  # docker-run has ended

    def close(self) -> None:
        """Let docker-run go on.  After this call, SIGTERM ends this process."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _outlast(docker: Docker, pause: Pause, net: os.stat_result, report: _Report, *, killed: bool) -> None:
    """Return once the container has ended for good, or if it was never started."""
    look_again = killed
    while True:
        try:
            pid = _pid_of_container(docker, pause)
        except DockerError:
            # The daemon is down.  Without live-restore, all containers end with it, including the pause
            # container.
            report.close()
            if not pause.is_alive:
                return
            time.sleep(2)
            continue
        if pid is not None:
            report.close()
            _wait_for_end(pid, net)
            look_again = True
        elif look_again:
            time.sleep(_SECOND_LOOK)
            look_again = False
        else:
            return


def _pid_of_container(docker: Docker, pause: Pause) -> int | None:
    """Return the real container's PID; 0 while docker restarts it; None if there is no such container."""
    ids = docker(
        "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={PAUSE_LABEL}={pause.name}"
    ).split()
    if not ids:
        return None
    try:
        status, pid = docker("inspect", "--format", "{{.State.Status}} {{.State.Pid}}", ids[0]).split()
    except DockerError:
        if docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"id={ids[0]}"):
            raise
        return None  # removed just now
    return int(pid) if status in ("running", "paused", "restarting") else None


def _wait_for_end(pid: int, net: os.stat_result) -> None:
    try:
        process = os.pidfd_open(pid)
    except (OSError, ValueError):
        time.sleep(0.5)  # it has ended, and docker is about to notice, or to start it again
        return
    try:
        # The PID may belong to another process now.  Or the container has moved to another namespace itself.
        try:
            status = os.stat(f"/proc/{pid}/ns/net")
        except OSError:
            status = None
        is_container = status and (status.st_dev, status.st_ino) == (net.st_dev, net.st_ino)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(None if is_container else 2000)
    finally:
        os.close(process)


def _clear(docker: Docker, pause: Pause, settings: Settings, report: _Report, log: Log) -> None:
    try:
        detach.down(pause.id, settings, log)
    except Exception as error:
        log.failure("detach", error)
        report.say(problem=message_with_notes(error))
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            pause_container.remove(docker, pause.name)
            break
        except DockerError as error:
            if not pause.is_alive:
                break  # the daemon removes it by itself
            report.say(problem=f"the pause container {pause.name} is not removed yet: {error}")
            report.close()
            if time.monotonic() > deadline:
                log.failure("removal", error, f"of the pause container {pause.name}")
                break
            time.sleep(2)
    log.discard()
    report.close()
