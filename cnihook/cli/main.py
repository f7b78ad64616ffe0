# SPDX-License-Identifier: Apache-2.0
"""The command `cnihook`: finds the file of the command that is asked for, and imports that one alone."""

import gc
import os
import sys

from cnihook.lean import onefile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

# command: what it is for, in the order of --help
COMMANDS = {
    "createRuntime": "the OCI hook: attach the container whose state is on stdin",
    "poststop": "the OCI hook: detach it",
    "inject": "the hook into a bundle's config.json, or out again",
    "hooks.d": "the hook for podman and CRI-O, by annotation",
    "attach": "attach a container that is running already",
    "detach": "take a container off its networks",
    "gc": "release what containers that are gone left behind",
    "ps": "which containers are on which networks",
    "inspect": "all there is of one container, on record and in the kernel",
    "graph": "a picture of networks, containers, addresses and ports",
    "stats": "what goes through each attachment",
    "repair": "put back what was taken from the networks of running containers",
    "doctor": "what is wrong on this host, and what mends it",
    "metrics": "what Prometheus is to know",
    "logs": "what happened to a container's network",
    "add": "attach a network namespace to one network, as cnitool does",
    "del": "take it off again",
    "check": "compare what is there with what was set up",
    "status": "whether a network can take another container",
    "list": "the networks there are, and what serves them",
    "validate": "every problem of network configurations",
    "plan": "what each plugin would be given; nothing is run",
    "install-plugins": "the built-in plugins as executables, for other runtimes",
    "new-plugin": "a plugin project that works, to be made into one's own",
    "conformance": "hold any CNI plugin or runtime to the specification",
    "dhcp-keeper": "keep the leases of the plugin dhcp; starts and ends by itself",
    "completion": "completion of all this for bash, zsh or fish",
    "man": "the manual page of a command; a cookbook; troubleshooting",
}
_FILES = {"del": "delete", "hooks.d": "hooks_d"}  # those whose name Python has no use for
HOOK = ("createRuntime", "poststop")


def main() -> None:
    os.umask(os.umask(0o077) | 0o022)
    code = run(sys.argv[1:])
    if not code:
        onefile.keep()
    # Past the interpreter's own winding-up, in which it frees what the kernel frees anyway: 1 ms of a hook,
    # 5 of a command.
    os._exit(code)


def run(argv: "list[str]") -> int:
    """Returns the exit code: 0, 1 refused or failed, 2 usage."""
    try:
        try:
            code = _run(argv)
        except SystemExit as end:  # argparse's, behind --help and wrong words
            code = int(end.code or 0)
        if sys.stdout:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        return 1  # whoever read our output has enough of it
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("CNIHOOK_DEBUG"):
            raise
        from cnihook.lean.words import explain

        _complain(": ".join([*argv[:1], explain(error)]))
        return 1


def _run(argv: "list[str]") -> int:
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from cnihook.lean import streams

        streams.reopen()
    command, *arguments = argv or ["--help"]
    if command in ("--help", "-h", "help"):
        print(usage(), end="")
        return 0 if argv else 2
    if command in ("--version", "version"):
        from cnihook import __version__

        print(f"cnihook {__version__}")
        return 0
    if command not in COMMANDS:
        _complain(f"no command {command!r}; there are: {', '.join(COMMANDS)}")
        return 2
    gc.disable()  # nothing that is loaded is garbage; the collector's rounds meanwhile cost 1 ms
    onefile.use(command)
    if command in HOOK:  # in which nothing lives for long
        from cnihook import hook

        return hook.main(command, arguments)
    module = load(command)
    gc.enable()
    code: int = module.main(arguments)
    return code


def _complain(text: str) -> None:
    from cnihook.log import complain

    complain(text)


def load(command: str) -> "ModuleType":
    """The file of a command: its `parser()` and its `main(argv)`."""
    name = _FILES.get(command, command.replace("-", "_"))
    module: ModuleType = getattr(__import__("cnihook.cli", fromlist=[name]), name)
    return module


def usage() -> str:
    lines = "".join(f"  {name:<16} {purpose}\n" for name, purpose in COMMANDS.items())
    return (
        "usage: cnihook COMMAND [ARGUMENT]...\n\nCNI networks for containers of runc, crun and others.\n\n"
        f"{lines}\n`cnihook COMMAND --help` says more of each.  Beside it: priv-net-run, docker-run.\n"
        "NETCONFPATH names the folder of networks (/etc/cni/net.d), CNI_PATH folders of plugins\n"
        "that go before the built-in ones.\n"
    )
