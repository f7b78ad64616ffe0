# SPDX-License-Identifier: Apache-2.0
"""cnihook install: put the commands and what engines, systemd and shells need at their places."""

import os
from collections import Counter

from cnihook import codecache
from cnihook.cli import compile as compile_command
from cnihook.cli import hooks_d
from cnihook.cli.installation import docker_daemon, part_names, parts
from cnihook.cli.installation.manifest import Manifest, digest, digest_of
from cnihook.cli.shared import arguments, files
from cnihook.cli.shared.arguments import Parser
from cnihook.fast import codecache_file
from cnihook.types.errors import IO_FAILURE, CniError

_CHOICES = {part: purpose for part, purpose in part_names.PARTS.items() if part != part_names.COMMANDS}
_LINES = "".join(f"  {part:<12} {purpose}\n" for part, purpose in _CHOICES.items())

DESCRIPTION = f"""\
Install this cnihook: its programs in PREFIX/bin, and the parts of --with:

{_LINES}
Nothing is started or enabled; the last lines print the commands for it.  The files refer to this checkout or
environment, so it must stay where it is.  Run `cnihook install` again after an update.
"""

EPILOG = """\
A file of another program is left as it is, and nothing is written then.  A second `install` writes only
what differs, and can add parts.  `cnihook uninstall` removes all of it; PREFIX/share/cnihook/installed.json
lists the files.
"""

DEBIAN = "/usr/lib/python3/dist-packages"
PREFIX = "/usr/local"
_WRITE, _REMOVE, _CHANGE = "write", "remove", "change"
_DONE = {_WRITE: "written", _REMOVE: "removed", _CHANGE: "changed"}
# What makes a part effective: it starts services, or makes one read its configuration.
_NEXT = {
    part_names.SYSTEMD: (
        "systemctl daemon-reload",
        "systemctl enable --now cnihook-gc.timer cnihook-repair.service cnihook-resolv-conf.path",
    ),
    part_names.DOCKER: ("systemctl reload docker",),
}


def parser() -> Parser:
    parser = Parser("install", DESCRIPTION, EPILOG)
    add_prefix(parser)
    parser.add_argument(
        "--with",
        dest="parts",
        metavar="PART,...",
        default=",".join(part_names.DEFAULT),
        help=f"the parts (default: {','.join(part_names.DEFAULT)}); an empty text: only the programs",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    parser.add_argument(
        "--destdir",
        metavar="DIR",
        type=arguments.path,
        help="for packagers: write all files below DIR, in which this cnihook is, and nothing else",
    )
    return parser


def add_prefix(parser: Parser) -> None:
    parser.add_argument(
        "--prefix",
        metavar="PREFIX",
        type=arguments.path,
        default=PREFIX,
        help=f"the folder above bin and share (default: {PREFIX})",
    )


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    names = [name for name in options.parts.split(",") if name]
    for name in names:
        if name not in _CHOICES:
            usage.error(f"--with: no part {name!r}; there are: {', '.join(_CHOICES)}")
    names.append(part_names.COMMANDS)

    def work() -> None:
        if options.destdir:
            return _write_below(options.destdir, options.prefix, names)
        refuse_debian("`apt-get install cnihook-hooks` adds the hook for podman and CRI-O")
        plan = _Plan(options.prefix, names)
        if options.dry_run:
            arguments.say("\n".join(plan.steps() or ["nothing to do"]))
        else:
            _install(plan)

    return arguments.work("install", work)


def refuse_debian(hint: str) -> None:
    """Raise CniError if dpkg has installed this cnihook."""
    if os.path.dirname(codecache.PACKAGE) == DEBIAN:
        raise CniError(
            IO_FAILURE, "this cnihook is a Debian package, which has all its files in place", hint
        )


def _write_below(destdir: str, prefix: str, names: list[str]) -> None:
    """Write the files of a package.  Their texts name paths as they are when the package is installed."""
    for part in part_names.PARTS:
        for file in parts.files(part, prefix) if part in names else ():
            path = destdir + file.path
            files.make_folder(os.path.dirname(path))
            files.write(path, file.text.replace(f"{destdir}/", "/"), file.mode)


class _Plan:
    """The changes that an installation needs; carry_out() makes them."""

    def __init__(self, prefix: str, names: list[str]) -> None:
        """Compare what is there with what will be.  Raises CniError if another file is there."""
        self.prefix = prefix
        self.manifest = Manifest(prefix)
        self.names = [part for part in part_names.PARTS if part in (*names, *self.manifest.parts)]
        self.files = [(part, file) for part in self.names for file in parts.files(part, prefix)]
        self.changed = {file.path for _, file in self.files if digest_of(file.path) != digest(file.text)}
        paths = {file.path for _, file in self.files}
        self.outdated = [
            path for path in self.manifest.files if path not in paths and self.manifest.has(path)
        ]
        self.must_compile = compile_command.may_write() and not codecache_file.is_current()
        self.docker_before = self.docker = ""
        self._check()

    def _check(self) -> None:
        foreign = [
            file.path
            for _, file in self.files
            if file.path in self.changed
            and os.path.lexists(file.path)
            and not self.manifest.has(file.path)
            and not file.is_ours(file.path)
        ]
        if foreign:
            more = f", and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise CniError(
                IO_FAILURE,
                f"{foreign[0]}{more}: not written by cnihook; nothing is installed",
                "move it away, or choose another --prefix or fewer parts",
            )
        if part_names.DOCKER in self.names:
            self.docker_before = docker_daemon.read()
            self.docker = docker_daemon.with_runtime(self.docker_before, parts.runtime(self.prefix))
        if part_names.HOOKS_D in self.names:
            hooks_d.check_podman()
            hooks_d.try_hook(os.environ)

    def steps(self) -> list[str]:
        """Return the steps as text; the first word of each is its kind."""
        steps = [f"{_WRITE} {codecache.PATH}"] if self.must_compile else []
        steps += [f"{_WRITE} {file.path}" for _, file in self.files if file.path in self.changed]
        steps += [f"{_REMOVE} {path}" for path in self.outdated]
        if self.docker != self.docker_before:
            steps.append(f"{_CHANGE if self.docker_before else _WRITE} {docker_daemon.PATH}")
        return steps

    def carry_out(self) -> None:
        self._announce()
        if self.must_compile:
            compile_command.write()
        for part in self.names:
            for file_part, file in self.files:
                if file_part == part and file.path in self.changed:
                    files.write(file.path, file.text, file.mode, durable=part == part_names.HOOKS_D)
            if part == part_names.DOCKER and self.docker != self.docker_before:
                docker_daemon.write(self.docker)
        for path in self.outdated:
            os.unlink(path)
        self.manifest.files = {file.path: [digest(file.text)] for _, file in self.files}
        self.manifest.write()

    def _announce(self) -> None:
        """Write into the manifest what is about to be written, so that it can be removed in any case."""
        manifest = self.manifest
        manifest.parts = self.names
        manifest.compiled |= self.must_compile
        for _, file in self.files:
            present = [digest_of(file.path)] if os.path.lexists(file.path) else []
            manifest.files[file.path] = [*present, digest(file.text)]
            manifest.make_folder(os.path.dirname(file.path))
        if self.docker != self.docker_before:
            before = manifest.docker.get("before", self.docker_before)
            manifest.docker = {"before": before, "after": self.docker}
            manifest.make_folder(os.path.dirname(docker_daemon.PATH))
        manifest.write()


def _install(plan: _Plan) -> None:
    steps = plan.steps()
    if not steps:
        return arguments.say("nothing to do")
    plan.carry_out()
    prefix = "" if plan.prefix == PREFIX else f" --prefix {plan.prefix}"
    counts = Counter(step.partition(" ")[0] for step in steps)
    summary = ", ".join(f"{counts[kind]} {name}" for kind, name in _DONE.items() if counts[kind])
    arguments.say(f"files: {summary}; `cnihook uninstall{prefix}` removes what is installed")
    for part, commands in _NEXT.items():
        if part in plan.names:
            for command in commands:
                arguments.say(f"next: {command}")
    if part_names.HOOKS_D in plan.names:
        hooks_d.warn_of_masking(hooks_d.DEFAULT)
