# SPDX-License-Identifier: Apache-2.0
"""The process that forks for each call of a built-in plugin.

    python3 -m tests.support.plugins.forkserver SOCKET

It has only the plugins in memory, because the cost of a fork grows with the memory of the process.  pytest
with its tests is five times as large.
"""

import gc
import json
import os
import pkgutil
import select
import socket
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import cnihook
from cnihook.protocol import executable
from tests.support.host import enclosure

PACKAGES = ("fast", "ipam", "links", "linux", "nftables", "plugins", "process", "protocol", "sdk", "types")


def main() -> None:
    """Serve requests until no process is left that could send one.

    A request is a plugin's name and its environment, as JSON, with seven descriptors: the PID namespace, the
    mount namespace and the network namespace to enter, 0, 1 and 2 of the plugin, and a pipe.  The pipe gets
    the plugin's exit status as decimal digits when it has ended, or nothing if it could not be started.
    """
    requests = socket.socket(fileno=int(sys.argv[1]))
    load()
    gc.freeze()
    ready = select.poll()
    ready.register(requests, select.POLLIN)
    calls: dict[int, tuple[int, int]] = {}
    while True:
        for descriptor, _ in ready.poll():
            if descriptor in calls:
                ready.unregister(descriptor)
                finish(*calls.pop(descriptor))
                os.close(descriptor)
                continue
            message, descriptors, *_ = socket.recv_fds(requests, 1 << 20, 7, socket.MSG_CMSG_CLOEXEC)
            if not message:
                return
            plugin, environment = json.loads(message)
            *inherited, answer = descriptors
            try:
                pid = start(plugin, environment, inherited)
            except OSError:
                os.close(answer)
            else:
                ended = os.pidfd_open(pid)
                calls[ended] = pid, answer
                ready.register(ended, select.POLLIN)
            for one in inherited:
                os.close(one)


def finish(pid: int, answer: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        os.write(answer, str(status).encode())
    except BrokenPipeError:
        pass  # it took too long, and the caller no longer waits
    os.close(answer)


def load() -> None:
    (path,) = cnihook.__path__
    for package in PACKAGES:
        import_module(f"cnihook.{package}")
        for module in pkgutil.iter_modules([f"{path}/{package}"], f"cnihook.{package}."):
            if not module.ispkg:
                import_module(module.name)


def start(plugin: str, environment: dict[str, str], inherited: Sequence[int]) -> int:
    """Fork a process that serves one call and exits.  Returns its PID."""
    processes, files, net, *streams = inherited
    enclosure.enter_processes(processes)
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        enclosure.enter_files(files)
        enclosure.enter_net(net)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        serve(plugin, environment)
    except SystemExit as end:
        status = int(str(end.code or 0))
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def serve(plugin: str, environment: dict[str, str]) -> None:
    """Run the plugin as its executable does after its imports."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    executable.main(plugin)


if __name__ == "__main__":
    main()
