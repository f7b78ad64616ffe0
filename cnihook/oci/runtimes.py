# SPDX-License-Identifier: Apache-2.0
"""Lookup of running containers by the command line of their OCI runtime."""

import os
from collections.abc import Iterable

from cnihook.oci import state
from cnihook.oci.state import State
from cnihook.process import child
from cnihook.types.errors import INTERNAL, UNKNOWN_CONTAINER, CniError
from cnihook.types.names import check_container_id

KNOWN = ("runc", "crun")

_TIMEOUT = 10.0  # seconds; the answer takes milliseconds


def find(container_id: str, places: "Iterable[tuple[str, str]]") -> State:
    """Return the state of a running container from the runtime that has it.

    `places`: (runtime, a command or a path; its --root, empty for its default).  Raises CniError.
    """
    check_container_id(container_id)  # otherwise the runtime could read it as an option
    running = {}
    refusals = []
    for name, root in places:
        program = _program(name)
        if not program:
            refusals.append(f"there is no {name}")
            continue
        try:
            running[f"{name} (--root {root})" if root else name] = _ask(program, container_id, root)
        except CniError as error:
            refusals.append(str(error))
    if len(running) > 1:
        raise CniError(
            UNKNOWN_CONTAINER,
            f"a container of this ID runs under {' and under '.join(running)}",
            "name one of them with --runtime, or with --root",
        )
    if not running:
        raise CniError(
            UNKNOWN_CONTAINER,
            f"no running container of this ID: {', '.join(refusals)}",
            "name its runtime with --runtime, and the folder of the runtime's containers with --root",
        )
    (state_of_container,) = running.values()
    return state_of_container


def _program(name: str) -> str:
    if "/" in name:
        return name if os.access(name, os.X_OK) else ""
    for folder in os.environ.get("PATH", os.defpath).split(":"):
        if folder and os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    return ""


def _ask(program: str, container_id: str, root: str) -> State:
    name = os.path.basename(program)
    argv = [program, *(["--root", root] if root else []), "state", container_id]
    try:
        outcome = child.run(program, argv, dict(os.environ), b"", _TIMEOUT)
    except OSError as error:
        raise CniError(INTERNAL, f"{program} cannot be executed: {error.strerror}") from None
    if outcome.timed_out:
        raise CniError(INTERNAL, f"{name} did not answer within {_TIMEOUT:g} s")
    if outcome.status != 0:
        text = " ".join(outcome.stderr.decode(errors="replace").split())
        text = text.partition(' level=error msg="')[2].removesuffix('"') or text  # format of runc's logger
        raise CniError(UNKNOWN_CONTAINER, f"{name} says {text[-300:] or f'exit status {outcome.status}'}")
    try:
        answer = state.parse(outcome.stdout)
    except CniError as error:
        raise CniError(INTERNAL, f"{name} state: {error.msg}") from None
    if not answer.pid:
        raise CniError(UNKNOWN_CONTAINER, f"under {name} it has stopped")
    return answer
