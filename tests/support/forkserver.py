# SPDX-License-Identifier: Apache-2.0
"""The process that the calls of built-in plugins are forks of: python3 -m tests.support.forkserver SOCKET

It has the plugins in memory and nothing else: to fork costs by what there is to copy, and pytest with its
tests is five times as large.
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
from typing import NoReturn

import cnihook
from cnihook.sdk import executable
from tests.support import place

PACKAGES = ("lean", "linux", "plugins", "sdk", "spec")


def main() -> None:
    """Serve requests until nobody is left who could send one.

    A request is a plugin's name and its environment, as JSON, with descriptors: of the PID namespace, the
    mount namespace and the network namespace to go to, then 0, 1 and 2 of the plugin, and at last a pipe on
    which its exit status comes as decimal digits once it is gone.
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
                pid, answer = calls.pop(descriptor)
                ready.unregister(descriptor)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.write(answer, str(status).encode())
                os.close(answer)
                os.close(descriptor)
                continue
            message, passed, *_ = socket.recv_fds(requests, 1 << 20, 7, socket.MSG_CMSG_CLOEXEC)
            if not message:
                return
            plugin, environment = json.loads(message)
            pid = start(plugin, environment, passed)
            for given in passed[:-1]:
                os.close(given)
            calls[os.pidfd_open(pid)] = pid, passed[-1]
            ready.register(list(calls)[-1], select.POLLIN)


def load() -> None:
    (path,) = cnihook.__path__
    for package in PACKAGES:
        for module in pkgutil.iter_modules([f"{path}/{package}"], f"cnihook.{package}."):
            if not module.ispkg:
                import_module(module.name)


def start(plugin: str, environment: dict[str, str], passed: Sequence[int]) -> int:
    """The PID of a process that serves one call and exits."""
    processes, files, net, *streams, _ = passed
    place.enter_processes(processes)
    pid = os.fork()
    if pid == 0:
        place.enter_files(files)
        place.enter_net(net)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        serve(plugin, environment)
    return pid


def serve(plugin: str, environment: dict[str, str]) -> NoReturn:
    """From here on, all is as in the plugin's executable once it has imported itself."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    status = 1
    try:
        executable.main(plugin)
    except SystemExit as end:
        status = int(str(end.code or 0))
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
