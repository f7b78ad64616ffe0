# SPDX-License-Identifier: Apache-2.0
"""The main loop of a process that forks for each request, in the namespaces that the request names."""

import gc
import json
import os
import select
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.support.host import enclosure

Run = Callable[[Any], None]


def serve(requests: socket.socket, run: Run) -> None:
    """Serve requests until no process is left that could send one.  `run`: serves one in a new process.

    A request is a JSON value, with seven descriptors: the PID namespace, the mount namespace and the network
    namespace to enter, 0, 1 and 2 of the process, and a pipe.  The pipe gets the exit status as decimal
    digits when the process has ended, or nothing if it could not be started.
    """
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
            *inherited, answer = descriptors
            try:
                pid = start(run, json.loads(message), inherited)
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


def start(run: Run, request: Any, inherited: Sequence[int]) -> int:
    """Fork a process that serves one request and exits.  Returns its PID."""
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
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        run(request)
    except SystemExit as end:
        status = int(str(end.code or 0))
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def set_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
