# SPDX-License-Identifier: Apache-2.0
"""
The keeper of one container's network: a process that outlives docker-run, in whatever way that ends.

It starts the pause container, so that no signal to docker-run can come between that and its removal.  Once
docker's client has ended it looks whether the container still runs: --detach, the detach keys, a client that
was killed.  If so it waits, for the end of a process and not on docker, whose daemon may be restarted.
Then it detaches the networks and removes the pause container.
"""

import json
import os
import select
import signal
import time

from cnihook import detach
from cnihook.cli import docker_pause
from cnihook.cli.docker_pause import Docker, DockerError, Pause
from cnihook.lean.words import describe
from cnihook.log import Log
from cnihook.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

LABEL = "cnihook.pause"  # on the real container: the name of its pause container

_FAREWELL = b"."  # docker-run's last word, unless it was killed
_SECOND_LOOK = 1.0  # seconds in which `docker restart`, or a start that was under way, shows
_PATIENCE = 60.0  # seconds for a daemon that does not answer to remove a container


class Keeper:
    """docker-run's side of it.  Whoever makes one calls release() in the end."""

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
        first = json.loads(self._lines.readline() or '"it was killed"')
        if isinstance(first, str):
            raise DockerError(first)
        return Pause(first)

    def release(self) -> None:
        """Docker's client has ended, or never was: the keeper may go to work, and needs nobody for it."""
        try:
            os.write(self._orders, _FAREWELL)
        except BrokenPipeError:
            pass  # it has ended: there was nothing to put away
        os.close(self._orders)

    def complaints(self) -> list[str]:
        """Wait until all is put away, or the container goes on without us.  What could not be put away."""
        # What is left unread of a pause() that was interrupted is JSON, and none of them.
        return [line.rstrip("\n") for line in self._lines if line[0] not in '{"']


def _live(
    docker: Docker, name: str, options: list[str], settings: Settings, orders: int, reports: int
) -> "NoReturn":
    """The keeper's side, from its first breath to its last."""
    try:
        _settle({orders, reports})
        report = _Report(reports)
        try:
            pause = docker_pause.start(docker, name, options)
        except Exception as error:
            report.say(json.dumps(describe(error)))
            os._exit(1)
        net = os.stat(f"/proc/{pause.pid}/ns/net")
        report.say(json.dumps(pause.facts))
        farewell = os.read(orders, 1)  # until docker-run closes its end, or dies
        log = Log(pause.id)
        try:
            _outlast(docker, pause, net, report, killed=farewell != _FAREWELL)
        except Exception as error:
            log.failure("watch of the container", error)
        _clear(docker, pause, settings, report, log)
    finally:
        os._exit(0)


def _settle(ours: set[int]) -> None:
    """Let go of the terminal, the working folder, and of all files, whose other ends may be waited for."""
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in ours:
            try:
                os.close(fd)
            except OSError:
                pass  # that of the listing itself
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, nobody learns how a child ended


class _Report:
    """What docker-run is told, while it waits."""

    def __init__(self, end: int) -> None:
        self._end = end

    def say(self, line: str) -> None:
        if self._end >= 0:
            try:
                os.write(self._end, f"{line}\n".encode(errors="replace"))
            except OSError:
                pass  # nobody is there any more

    def close(self) -> None:
        """From here on docker-run waits no longer, and this process is one like any other."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _outlast(docker: Docker, pause: Pause, net: os.stat_result, report: _Report, *, killed: bool) -> None:
    """Return once the container has ended for good, or never was."""
    look_again = killed
    while True:
        try:
            pid = _pid_of_container(docker, pause)
        except DockerError:
            # The daemon is away.  Without its live-restore all containers end with it, the pause container
            # among them.
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
    """The real container's process; 0 while docker restarts it; None if it has ended or is none."""
    found = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}={pause.name}").split()
    if not found:
        return None
    try:
        status, pid = docker("inspect", "--format", "{{.State.Status}} {{.State.Pid}}", found[0]).split()
    except DockerError:
        if docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"id={found[0]}"):
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
        # The number could be another's by now.  Or the container moved to another namespace, all by itself.
        try:
            theirs = os.stat(f"/proc/{pid}/ns/net")
        except OSError:
            theirs = None
        ours = theirs and (theirs.st_dev, theirs.st_ino) == (net.st_dev, net.st_ino)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(None if ours else 2000)
    finally:
        os.close(process)


def _clear(docker: Docker, pause: Pause, settings: Settings, report: _Report, log: Log) -> None:
    try:
        detach.down(pause.id, settings, log)
    except Exception as error:
        log.failure("detach", error)
        report.say(describe(error))
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            docker_pause.remove(docker, pause.name)
            break
        except DockerError as error:
            if not pause.is_alive:
                break  # the daemon removes it by itself
            report.say(f"the pause container {pause.name} is not removed yet: {error}")
            report.close()
            if time.monotonic() > deadline:
                log.failure(f"removal of the pause container {pause.name}", error)
                break
            time.sleep(2)
    log.discard()
    report.close()
