# SPDX-License-Identifier: Apache-2.0
"""Optional features of `priv-net-run`; imported only if one of them is requested."""

import os

from cnihook.cli.privnet.options import Options, UsageError
from cnihook.linux.netns import NetNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnihook.cli.privnet.deadline import Deadline
    from cnihook.cli.privnet.netns import Named
    from cnihook.cli.privnet.report import Report
    from cnihook.container.attach import Container
    from cnihook.linux.pcap import Capture
    from cnihook.runtime.addition import Attachment
    from cnihook.types.result import DNS


class Features:
    """--name, --netns, --json, --pcap, --timeout of one run.  Its methods are called in the course of it.

    Created before anything else is done: then an impossible request costs nothing, and paths are the
    caller's.
    """

    def __init__(self, options: Options, variables: "Mapping[str, str]") -> None:
        self._named: Named | None = None
        self._report: Report | None = None
        self._capture: Capture | None = None
        self._deadline: Deadline | None = None
        self._pcap = -1
        self._timeout = options.timeout
        if options.name:
            from cnihook.cli.privnet import netns

            netns.refuse_if_named(options.name)
        if options.netns:
            from cnihook.cli.privnet import netns

            self._named = netns.Named(options.netns)
        if options.json:
            from cnihook.cli.privnet import report

            number = options.json.isdecimal()
            self._report = report.Report(
                _taken(options.json) if number else _created(options.json, variables)
            )
        if options.pcap:
            self._pcap = _created(options.pcap, variables)

    @property
    def joined(self) -> "NetNS | None":
        """The existing namespace that the command joins; None if it gets a new one."""
        return self._named.joined if self._named else None

    @property
    def kept(self) -> str:
        """The name under which the namespace is kept; empty if it is not kept."""
        return self._named.name if self._named and not self.joined else ""

    def servers(self) -> "list[DNS]":
        """Return the name servers of the networks that a joined namespace has already."""
        return self._named.servers() if self._named and self.joined else []

    def begin(self, container: "Container") -> None:
        """Start the capture and name the namespace, before the first network is attached."""
        if self._pcap >= 0:
            from cnihook.linux import pcap

            self._capture = pcap.Capture(container.netns, self._pcap)
        if self._named and not self.joined:
            self._named.keep(container.netns)

    def start(self, container: "Container", command: int, attached: "list[Attachment]") -> "Deadline | None":
        """Report that the networks are up, and return the command's time limit, which begins now."""
        if self._report:
            self._report.networks_are_up(container.id, command, attached)
        if self._timeout:
            from cnihook.cli.privnet import deadline

            # A joined namespace may have other processes.
            self._deadline = deadline.Deadline(
                self._timeout, command, None if self.joined else container.netns.identity
            )
        return self._deadline

    def status(self, status: int) -> int:
        """Return the exit status, after the command has ended with `status`."""
        if self._deadline and self._deadline.is_over:
            from cnihook.cli.privnet.deadline import STATUS

            return STATUS
        return status

    def end(self, status: "int | None") -> str:
        """Finish while the networks exist.  `status`: None if the command did not run.  Returns errors."""
        problems = []
        if self._capture and (problem := self._capture.finish()):
            problems.append(f"--pcap: {problem}")
        if self._report and status is not None:
            try:
                self._report.command_ended(status)
            except OSError as error:
                problems.append(str(error.strerror))
        return "; ".join(problems)


def _taken(number: str) -> int:
    """Return a descriptor of the caller.  The command does not get it: it closes with this process."""
    try:
        # The standard streams are the command's as well, and are closed here while it runs.
        fd = os.dup(int(number))
    except (OSError, OverflowError):
        raise UsageError(f"--json {number}: there is no open descriptor of this number") from None
    if int(number) > 2:
        os.close(int(number))
    return fd


def _created(path: str, variables: "Mapping[str, str]") -> int:
    """Open a file for writing.  A new one belongs to the user that called: under sudo, that is not root."""
    new = not os.path.lexists(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    uid, gid = variables.get("SUDO_UID", ""), variables.get("SUDO_GID", "")
    if new and uid.isdecimal() and gid.isdecimal() and not os.geteuid():
        os.fchown(fd, int(uid), int(gid))
    return fd
