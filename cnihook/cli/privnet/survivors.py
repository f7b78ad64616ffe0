# SPDX-License-Identifier: Apache-2.0
"""Processes that `priv-net-run` leaves behind, such as tmux: a warning.  Imported on a terminal only."""

from cnihook.fast.errors_text import listed
from cnihook.linux import netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SHOWN = 3


def warn(namespace: "tuple[int, int]", complain: "Callable[[str], None]") -> None:
    """Report the processes that are still in the namespace, whose networks are gone."""
    names = []
    for pid in netns.processes(namespace):
        try:
            with open(f"/proc/{pid}/comm", errors="replace") as file:
                names.append(f"{file.read().rstrip()} ({pid})")
        except OSError:
            continue  # it has just ended
    if names:
        complain(
            f"still running, without networks: {listed(names, _SHOWN)};"
            " to keep the networks, run it with --netns NAME"
        )
