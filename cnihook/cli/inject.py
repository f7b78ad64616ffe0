# SPDX-License-Identifier: Apache-2.0
"""cnihook inject: add the hook to a bundle's config.json, with the container's requests."""

import difflib
import json
import os
import sys

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.fast.errors_text import message, printable
from cnihook.names import resolv_conf
from cnihook.oci import inject
from cnihook.oci.json_edit import JsonDocument
from cnihook.request import options as request_options
from cnihook.request.option_table import INJECT
from cnihook.types.errors import IO_FAILURE, CniError

DESCRIPTION = """\
Prepare the bundle of a container, so that `runc run` or `crun run` attaches it to its networks.  Adds to
config.json:

  hooks        createRuntime and poststop
  namespaces   a network namespace, if it has none of its own
  annotations  one for each option below; also the host name, if it is given
  mounts       its own /etc/resolv.conf, /etc/hosts and /etc/hostname, unless
               another mount is there; the files are in BUNDLE/cnihook

All else of config.json stays as it is.  A second `inject` changes nothing.
"""

EPILOG = """\
--remove removes all that was added.  For this, the original config.json is kept in BUNDLE/cnihook.
"""


def parser() -> Parser:
    parser = Parser("inject", DESCRIPTION, EPILOG)
    parser.add_argument("bundle", metavar="BUNDLE", type=arguments.path, help="the folder with config.json")
    parser.add_argument("--remove", action="store_true", help="remove all that was added")
    parser.add_argument("--dry-run", action="store_true", help="print the difference, and change nothing")
    parser.add_requests(INJECT)
    parser.add_bounds()
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    return parser


def main(argv: list[str]) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    flags = [f"--{name}" for name, _ in options.given] + arguments.bounds_of(options)
    if options.remove and flags:
        usage.error(f"--remove removes all; it cannot be combined with {flags[0]}")

    def work() -> None:
        bundle = _Bundle(options.bundle)
        before = bundle.config.text
        if options.remove:
            bundle.withdraw()
        else:
            bundle.prepare(
                request_options.to_annotations(options.given),
                arguments.environment_of(options),
                arguments.bounds_of(options),
            )
        if options.dry_run:
            sys.stdout.writelines(_difference(before, bundle.config.text, bundle.path))
        elif options.remove:
            bundle.write_withdrawn(before)
        else:
            bundle.write_prepared(before)

    return arguments.work(f"inject {options.bundle}", work)


class _Bundle:
    """A bundle whose config.json is changed in memory, and written when it is complete."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "config.json")
        self.own = os.path.join(folder, "cnihook")
        self.kept = os.path.join(self.own, "config.json")
        self.files = {f"/etc/{name}": f"cnihook/{name}" for name in inject.ETC}
        try:
            self.config = inject.read(self.path)
        except OSError as error:
            raise CniError(IO_FAILURE, message(error), "BUNDLE is the folder with config.json") from None
        self.was_prepared = inject.has_hooks(self.config) and os.path.exists(self.kept)

    def prepare(self, annotations: dict[str, str], environment: dict[str, str], bounds: list[str]) -> None:
        inject.add_hooks(self.config, environment, bounds, renew=True)
        inject.add_namespace(self.config, has_request=bool(annotations))
        inject.add_annotations(self.config, annotations)
        if hostname := annotations.get(f"{request_options.PREFIX}hostname"):
            inject.set_hostname(self.config, hostname)
        inject.add_mounts(
            self.config, {path: source for path, source in self.files.items() if self._fits(path)}
        )

    def _fits(self, destination: str) -> bool:
        """Return True if the runtime will find a mount point for it, or can make one."""
        root = self.config.get("root", "path")
        root = os.path.join(os.path.dirname(self.path), root if isinstance(root, str) else "rootfs")
        root = os.path.normpath(root)
        target = nearest = root + destination
        while not os.path.lexists(nearest) and nearest != root:
            nearest = os.path.dirname(nearest)
        return nearest == target or not os.path.isdir(root) or os.access(nearest, os.W_OK)

    def write_prepared(self, before: str) -> None:
        os.makedirs(self.own, exist_ok=True)
        if not self.was_prepared:
            _write_new(self.kept, before, like=self.path)
        hostname = self.config.get("hostname")
        texts = {
            "resolv.conf": resolv_conf.of_host(),
            "hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
            "hostname": f"{hostname}\n" if isinstance(hostname, str) and hostname else "",
        }
        for name, text in texts.items():
            path = os.path.join(self.own, name)
            if not os.path.exists(path):
                _write_new(path, text)
        if self.config.text != before:
            inject.write(self.path, self.config.text, durable=True)

    def withdraw(self) -> None:
        if os.path.exists(self.kept):
            original = inject.read(self.kept)
        else:  # remove what is certainly cnihook's; the namespace and the host name may not be
            kept = {key: self.config.get(key) for key in ("linux", "hostname")}
            original = JsonDocument(json.dumps(kept))
        inject.remove(self.config, original, self.files, request_options.PREFIX)

    def write_withdrawn(self, before: str) -> None:
        if self.config.text != before:
            inject.write(self.path, self.config.text, durable=True)
        for name in (*inject.ETC, "config.json"):  # only these: it may be another program's folder
            if os.path.lexists(f"{self.own}/{name}"):
                os.unlink(f"{self.own}/{name}")
        try:
            os.rmdir(self.own)
        except OSError:
            pass


def _write_new(path: str, text: str, *, like: str = "") -> None:
    """Write a file with the mode and owner of `like`; without it, readable by all users of a container."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", opener=_open_private) as file:
        file.write(text)
        if like:
            status = os.stat(like)
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
        os.fchmod(file.fileno(), status.st_mode & 0o777 if like else 0o644)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _difference(before: str, after: str, path: str) -> list[str]:
    if before == after:
        return []
    if "\n" not in before.strip():  # on one line, a difference is hard to see
        before, after = (json.dumps(json.loads(text), indent=2) + "\n" for text in (before, after))
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), path, f"{path} (new)"
    )
    # Many a config.json is indented with tabs: `runc spec` writes it so.
    shown = ("\t".join(map(printable, line.removesuffix("\n").split("\t"))) for line in lines)
    return [f"{line}\n" for line in shown]
