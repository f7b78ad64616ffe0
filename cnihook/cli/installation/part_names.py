# SPDX-License-Identifier: Apache-2.0
"""
The parts of an installation.

They are in the order in which they are written: first what only a user starts, last what other programs
start.  So no engine runs a program that is not there yet.  The removal is in the opposite order.
"""

COMMANDS = "commands"
HOOKS_D, SYSTEMD, MAN, COMPLETION = "hooks.d", "systemd", "man", "completion"
DOCKER, CONTAINERD = "docker", "containerd"
# part: its purpose.  The commands are always installed.
PARTS = {
    COMMANDS: "the programs",
    MAN: "manual pages",
    COMPLETION: "completion for bash, zsh and fish",
    SYSTEMD: "units; none is enabled",
    DOCKER: "the runtime `cni` in /etc/docker/daemon.json",
    CONTAINERD: "the built-in plugins in /opt/cni/bin",
    HOOKS_D: "the hook for podman and CRI-O, by annotation",
}
DEFAULT = (SYSTEMD, MAN, COMPLETION)  # no other program starts anything because of these
