# SPDX-License-Identifier: Apache-2.0
"""cnihook uninstall: remove what `cnihook install` wrote."""

import os
import shutil
import subprocess

from cnihook import codecache
from cnihook.cli import compile as compile_command
from cnihook.cli import hooks_d, install
from cnihook.cli.installation import docker_daemon, part_names, parts
from cnihook.cli.installation.manifest import Manifest
from cnihook.cli.shared import arguments, listing
from cnihook.cli.shared.arguments import Parser
from cnihook.fast.errors_text import one_line
from cnihook.log import warn
from cnihook.types.errors import IO_FAILURE, CniError

DESCRIPTION = """\
Remove all files that `cnihook install` wrote, what other programs start first; and the folders that it made,
if they are empty.  A file that was changed since then is reported and left, with exit code 1.

It refuses while containers are attached: their end runs cnihook.
"""

EPILOG = """\
Networks, leases and records stay.  The checkout, or the environment of pip or pipx, stays as well: remove it
last.  Containers of docker that have the runtime `cni` cannot start again.
"""

_NEXT = "next: systemctl reload docker"
# A reload keeps the runtimes that docker knows if the file has none, and a restart may stop containers.
_RESTART = f"docker lists the runtime {docker_daemon.NAME} until its next restart, but cannot use it"


def parser() -> Parser:
    parser = Parser("uninstall", DESCRIPTION, EPILOG)
    install.add_prefix(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    parser.add_argument("--force", action="store_true", help="also while containers are attached")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)

    def work() -> None:
        install.refuse_debian("`apt-get remove cnihook` removes it")
        removal = _Removal(options.prefix)
        if options.dry_run:
            return arguments.say("\n".join(removal.steps()))
        if not options.force:
            _refuse_attached()
        removal.carry_out()

    return arguments.work("uninstall", work)


def _refuse_attached() -> None:
    """Raise CniError if a running container needs cnihook at its end."""
    if os.geteuid() != 0:
        return  # no container of this user is on record
    names = sorted({row.shown for row in listing.load() if row.alive and row.record.process})
    if names:
        more = f", and {len(names) - 5} more" if len(names) > 5 else ""
        raise CniError(
            IO_FAILURE,
            f"containers are attached: {', '.join(names[:5])}{more}",
            "stop or detach them; --force removes cnihook all the same",
        )


class _Removal:
    def __init__(self, prefix: str) -> None:
        """Read the manifest.  Raises CniError if nothing is installed, or if docker needs the runtime."""
        self.manifest = Manifest(prefix)
        if not self.manifest.exists:
            raise CniError(
                IO_FAILURE, f"nothing is installed below {prefix}", "--prefix names the one of `install`"
            )
        paths = [path for path in reversed(self.manifest.files) if os.path.lexists(path)]
        self.files = [path for path in paths if self.manifest.has(path)]
        self.changed = [path for path in paths if not self.manifest.has(path)]
        self.docker_before = self.docker = ""
        if self.manifest.docker:
            self.docker_before = docker_daemon.read()
            if self.docker_before == self.manifest.docker["after"]:
                self.docker = self.manifest.docker["before"]
            else:
                self.docker = docker_daemon.without_runtime(self.docker_before, parts.runtime(prefix))

    def steps(self) -> list[str]:
        steps = [f"disable {name}" for name in self._units]
        steps += [f"remove {path}" for path in self.files]
        if self.docker != self.docker_before:
            steps.append(f"{'change' if self.docker else 'remove'} {docker_daemon.PATH}")
        if self.manifest.compiled:
            steps.append(f"remove {codecache.PATH}")
        return [*steps, f"remove {self.manifest.path}"]

    @property
    def _units(self) -> list[str]:
        names = [os.path.basename(path) for path in self.files if "/systemd/system/" in path]
        return names if shutil.which("systemctl") else []

    def carry_out(self) -> None:
        _disable(self._units)
        # The hooks first, then docker's runtime, because both start what comes after them.
        hooks = [path for path in self.files if os.path.dirname(path) == hooks_d.DEFAULT]
        for path in hooks:
            os.unlink(path)
        if self.docker != self.docker_before:
            docker_daemon.write(self.docker)
        for path in self.files:
            if path not in hooks:
                os.unlink(path)
        if self.manifest.compiled:
            compile_command.remove()
        self._finish()

    def _finish(self) -> None:
        manifest = self.manifest
        for path in self.changed:
            warn(f"uninstall: {path} was changed since the installation, left as it is")
        os.unlink(manifest.path)
        for folder in reversed(manifest.folders):
            try:
                os.rmdir(folder)
            except OSError:
                pass  # it has files of other programs
        if part_names.SYSTEMD in manifest.parts:
            arguments.say("next: systemctl daemon-reload")
        if self.docker != self.docker_before:
            arguments.say(_NEXT if docker_daemon.has_runtimes(self.docker) else _RESTART)
        if self.changed:
            raise CniError(IO_FAILURE, f"{len(self.changed)} changed files are left")


def _disable(units: list[str]) -> None:
    """Disable and stop the units: their links would stay, and name files that are gone."""
    if not units:
        return
    now = ["--now"] if os.path.isdir("/run/systemd/system") else []  # systemd runs
    result = subprocess.run(["systemctl", "disable", *now, *units], capture_output=True, text=True)
    if result.returncode:
        warn(f"uninstall: systemctl disable: {one_line(result.stderr)}")
