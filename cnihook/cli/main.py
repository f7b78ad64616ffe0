# SPDX-License-Identifier: Apache-2.0
"""The command `cnihook`: it imports only the file of the command that is requested."""

import gc
import os
import sys
import time

import cnihook
from cnihook import codecache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

# command: its purpose, in the order of --help
COMMANDS = {
    "createRuntime": "attach the container whose state is on stdin (OCI hook)",
    "poststop": "detach the container whose state is on stdin (OCI hook)",
    "inject": "add the hook to a bundle's config.json, or remove it",
    "hooks.d": "install the hook for podman and CRI-O, by annotation",
    "attach": "attach a container that is running already",
    "detach": "detach a container from its networks",
    "connect": "attach a running container to one more network",
    "disconnect": "detach a running container from one network",
    "publish": "publish ports of a running container",
    "unpublish": "take published ports of a running container back",
    "update": "change ports and limits of a running container",
    "diff": "show what edited network files have that containers lack",
    "apply": "change running containers as their network files were edited",
    "gc": "release what containers that are gone left behind",
    "ps": "list which containers are on which networks",
    "port": "list the published ports of a container, as docker does",
    "inspect": "show a container's records beside the state of the kernel",
    "graph": "draw networks, containers, addresses and ports",
    "stats": "show the traffic of each attachment",
    "repair": "restore what running containers lost of their networks",
    "policy": "say which connections containers may have",
    "denied": "list the connections that policies denied",
    "doctor": "report what is wrong on this host, and how to fix it",
    "metrics": "print metrics for Prometheus",
    "logs": "print what happened to a container's network",
    "add": "attach a network namespace to one network, as cnitool does",
    "del": "detach a network namespace from one network",
    "check": "compare attachments with what was set up",
    "status": "ask a network if it can attach another container",
    "network": "create, list, change and remove networks",
    "sticky": "list and remove addresses that are kept for a name",
    "cluster": "join networks that several hosts share",
    "agent": "connect this host with the other hosts of its networks",
    "list": "list the networks, and which plugins serve them",
    "validate": "report every problem of network configurations",
    "schema": "print a JSON Schema of networks or of a plugin",
    "plan": "show what each plugin would be given; nothing is run",
    "compile": "store the compiled code in one file, for faster starts",
    "install-plugins": "install the built-in plugins as executables",
    "install": "install the programs, and what engines and shells need",
    "uninstall": "remove what `install` wrote",
    "new-plugin": "write a plugin project that works, as a start",
    "conformance": "check a CNI plugin or runtime against the specification",
    "dhcp-keeper": "renew DHCP leases; the plugin dhcp starts it",
    "dns-keeper": "resolve the names in policies; they start it",
    "mdns-keeper": "send multicast DNS on; containers start it",
    "completion": "print the completion script for bash, zsh or fish",
    "man": "show the manual page of a command, or a guide",
}
# command: its own commands with their purposes; each has a manual page, such as cnihook-network-create(8)
OWN_COMMANDS = {
    "network": {
        "create": "write the file of a network",
        "ls": "list the networks",
        "inspect": "print all about networks, as JSON",
        "edit": "change a network's file in an editor",
        "rm": "remove networks",
        "prune": "remove the networks that no container uses",
    },
    "policy": {
        "apply": "put policies in force, also for running containers",
        "test": "run the tests of the policies",
        "diff": "show what apply would change",
        "list": "list the policies, and how many containers have them",
        "show": "print a policy, and the containers that it selects",
        "delete": "remove policies",
        "learn": "write a policy of what was denied or audited",
        "explain": "say if a connection is allowed, and by which rule",
    },
    "cluster": {
        "init": "write the settings of a network into etcd",
        "join": "make this host a member of a network",
        "leave": "take this host out of a network",
        "status": "show the hosts of a network, and what is wrong",
        "forget": "take a host that is gone for good out of a network",
    },
    "sticky": {
        "ls": "list the sticky names, and what is kept for them",
        "rm": "release what is kept for sticky names",
    },
}
_FILES = {"del": "delete", "hooks.d": "hooks_d"}  # commands whose names cannot be names of modules
HOOK = ("createRuntime", "poststop")


def main() -> None:
    os.umask(os.umask(0o077) | 0o022)
    code = run(sys.argv[1:])
    cnihook.discard_unsafe_caches()
    # Skip the interpreter's shutdown, which frees what the kernel frees anyway: 1 ms of a hook, 5 ms of a
    # command.
    os._exit(code)


def run(argv: "list[str]") -> int:
    """Run a command, and return the exit code: 0, 1 rejected or failed, 2 usage."""
    try:
        try:
            code = _run(argv)
        except SystemExit as end:  # raised by argparse, after --help or wrong arguments
            code = int(end.code or 0)
        if sys.stdout:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        return 1  # the reader of stdout has closed it
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("CNIHOOK_DEBUG"):
            raise
        from cnihook.fast.errors_text import message_with_hint

        _complain(": ".join([*argv[:1], message_with_hint(error)]))
        return 1


def _run(argv: "list[str]") -> int:
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from cnihook.process import stdio

        stdio.reopen_python_streams()
    command, *arguments = argv or ["--help"]
    if command == "help" and arguments:
        command, *arguments = (*arguments, "--help")
    if command in ("--help", "-h", "help"):
        print(usage(), end="")
        return 0 if argv else 2
    if command in ("--version", "version"):
        from cnihook import __version__

        print(f"cnihook {__version__}")
        return 0
    if command not in COMMANDS:
        from cnihook.fast import similar

        hint = similar.ended(similar.hint(command, COMMANDS))
        _complain(f"no command {command!r}; {hint} see `cnihook --help`")
        return 2
    if command in HOOK and ("--help" in arguments or "-h" in arguments):
        from cnihook.cli import hook_help

        print(hook_help.text(), end="")
        return 0
    began = time.monotonic()
    gc.disable()  # nothing that is loaded is garbage; collections during the imports cost 1 ms
    codecache.install_finder()
    if command in HOOK:  # its objects live for a short time only
        from cnihook import hook

        return hook.main(command, arguments, began)
    module = load(command)
    gc.enable()
    code: int = module.main(arguments)
    return code


def _complain(text: str) -> None:
    from cnihook.log import warn

    warn(text)


def load(command: str) -> "ModuleType":
    """Return the module of a command, with its `parser()` and its `main(argv)`."""
    name = _FILES.get(command, command.replace("-", "_"))
    module: ModuleType = getattr(__import__("cnihook.cli", fromlist=[name]), name)
    return module


def usage() -> str:
    lines = "".join(f"  {name:<16} {purpose}\n" for name, purpose in COMMANDS.items())
    return (
        "usage: cnihook COMMAND [ARGUMENT]...\n\nCNI networks for containers of runc, crun and others.\n\n"
        f"{lines}\n`cnihook help COMMAND` describes a command.\n"
        "Other programs: priv-net-run, docker-run, cni-runc.\n"
        "\nenvironment:\n"
        "  NETCONFPATH       folder of networks (default: /etc/cni/net.d)\n"
        "  CNI_PATH          folders whose plugins come before the built-in ones\n"
        "  CNIHOOK_TIMING    1: createRuntime and poststop log the time of each step\n"
        "\nexit codes, unless a command lists others:\n"
        "  0  done\n  1  rejected or failed\n  2  wrong usage\n"
    )
