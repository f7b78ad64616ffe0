# SPDX-License-Identifier: Apache-2.0
"""cnihook hooks.d: the hook for every container of podman and CRI-O that has an annotation of cnihook."""

import json
import os
import shutil
import subprocess

from cnihook.cli.shared import arguments, files
from cnihook.cli.shared.arguments import Parser
from cnihook.fast.errors_text import message, one_line
from cnihook.log import warn
from cnihook.oci import engines, inject, podman
from cnihook.request import option_table, values
from cnihook.request import options as request_options
from cnihook.types.errors import IO_FAILURE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Both engines read the first folder.  In podman, a file of the same name in the second one replaces it.
DEFAULT = "/usr/share/containers/oci/hooks.d"
OVERRIDE = "/etc/containers/oci/hooks.d"
_FOLDERS = "90-cnihook-folders"  # the engines ignore it, because its name does not end in .json

DESCRIPTION = f"""\
Install two files in DIR.  With them, podman and CRI-O run the hook for every container that has an
annotation {request_options.PREFIX}* or {values.NPWG}; see oci-hooks(5).

  podman run --network none --annotation {request_options.NETWORKS}=mynet IMAGE
"""

EPILOG = f"""\
As root, podman reads {DEFAULT} by default.  Rootless podman reads the folder of
--hooks-dir.

Podman before 4.6 copies the annotations of an image into the container, so that an image can request
networks and ports.  There, `install` fails without --trust-images, and so does the hook.

The files have no effect on pods of CRI-O: the containers of a pod join its network namespace, which CRI-O
attaches, or share the host's.  The hook leaves both alone, and logs a line.  CRI-O rejects entries of
allowed_annotations that it does not know, such as those of cnihook.

If DIR is missing, `install` makes it, with the folders above it.  The file {_FOLDERS} in it lists them,
and `remove` removes those that are empty then.

Remove the files before cnihook itself: while they name a program that does not exist, these engines start no
container at all.
"""


def parser() -> Parser:
    parser = Parser("hooks.d", DESCRIPTION, EPILOG)
    parser.add_argument(
        "action",
        choices=["install", "remove"],
        metavar="install|remove",
        help="install or remove both files",
    )
    parser.add_argument(
        "--dir", metavar="DIR", type=arguments.path, default=DEFAULT, help=f"the folder (default: {DEFAULT})"
    )
    parser.add_bounds()
    parser.add_argument("--trust-images", action="store_true", help=option_table.entry("trust-images").help)
    parser.add_conf_dir()
    parser.add_plugin_dirs()
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)

    def work() -> None:
        try:
            if options.action == "install":
                if not options.trust_images:
                    check_podman()
                bounds = arguments.bounds_of(options)
                bounds += ["--trust-images"] if options.trust_images else []
                _install(options.dir, arguments.environment_of(options), bounds)
            else:
                _remove(options.dir)
        except OSError as error:
            raise CniError(IO_FAILURE, message(error)) from None

    return arguments.work(f"hooks.d {options.action}", work)


def path_of(folder: str, stage: str) -> str:
    """Return a path that sorts last: if a hook after it failed, crun would not run cnihook's poststop."""
    return f"{folder}/90-cnihook-{stage}.json"


def content(stage: str, environment: "Mapping[str, str]", bounds: "Sequence[str]" = ()) -> str:
    """Return the file of one stage.  The hook knows the stage only from its list of arguments."""
    names = (request_options.PREFIX.replace(".", r"\."), values.NPWG.replace(".", r"\.") + "$")
    value = {
        "version": "1.0.0",
        "hook": inject.hook(stage, environment, bounds),
        "when": {"annotations": {f"^({'|'.join(names)})": ".*"}},
        "stages": [stage],
    }
    return json.dumps(value, indent=2) + "\n"


def check_podman() -> None:
    """Raise CniError if this host's podman copies annotations of images, or may do so."""
    program = shutil.which("podman", path=f"{os.environ.get('PATH', os.defpath)}:/usr/bin:/bin")
    if not program:
        return  # CRI-O copies none
    program = os.path.realpath(program)
    version = podman.version(program)
    if version and version >= podman.FIRST_WITHOUT:
        return
    raise CniError(
        IO_FAILURE,
        podman.reason(version) if version else f"the version of {program} is not known",
        "use podman 4.6 or newer, or cni-runc; `cnihook hooks.d install --trust-images` trusts all images",
    )


def _install(folder: str, environment: dict[str, str], bounds: "list[str] | None" = None) -> None:
    foreign = [path_of(folder, stage) for stage in inject.STAGES if not is_free(folder, stage)]
    if foreign:
        raise CniError(
            IO_FAILURE,
            f"{foreign[0]} was not written by cnihook, left as it is",
            "--dir names another folder",
        )
    try_hook(environment)
    if missing := files.make_folder(folder):
        files.write(f"{folder}/{_FOLDERS}", json.dumps(missing) + "\n", durable=True)
    # First poststop: no container may be attached that would not be detached.
    for stage in reversed(inject.STAGES):
        path = path_of(folder, stage)
        files.write(path, content(stage, environment, bounds or []), durable=True)
        problem = _problem(path, stage)
        if problem:
            for written in inject.STAGES:  # one bad file, and the engine starts no container
                if os.path.lexists(path_of(folder, written)):
                    os.unlink(path_of(folder, written))
            _remove_folders(folder)
            raise CniError(IO_FAILURE, f"{path}: {problem}; it is removed again")
    warn_of_masking(folder)


def warn_of_masking(folder: str) -> None:
    """Print a line for each file that makes podman ignore the one in `folder`."""
    for stage in inject.STAGES:
        masking = path_of(OVERRIDE, stage)
        if folder == DEFAULT and os.path.lexists(masking):
            warn(f"hooks.d install: podman uses {masking} instead of {path_of(folder, stage)}")


def _remove(folder: str) -> None:
    for stage in inject.STAGES:
        if os.path.lexists(path_of(folder, stage)):
            if not is_free(folder, stage):
                raise CniError(
                    IO_FAILURE, f"{path_of(folder, stage)} was not written by cnihook, left as it is"
                )
            os.unlink(path_of(folder, stage))
    _remove_folders(folder)


def _remove_folders(folder: str) -> None:
    """Remove the folders that _install() made; one with other files stays, and those above it."""
    path = f"{folder}/{_FOLDERS}"
    folders = engines.read_json(path)
    if not isinstance(folders, list):
        return
    os.unlink(path)
    while folder in folders:
        try:
            os.rmdir(folder)
        except OSError:
            return  # it has files of other programs
        folder = os.path.dirname(folder)


def is_free(folder: str, stage: str) -> bool:
    """Return True if there is no file, or if cnihook wrote it."""
    path = path_of(folder, stage)
    if not os.path.lexists(path):
        return True
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and inject.is_ours(content.get("hook"), stage)


def try_hook(environment: "Mapping[str, str]") -> None:
    """Start the hook's program like the engine.  Raises CniError if that fails."""
    entry = inject.hook("createRuntime", environment)
    argv = [*entry["args"][: entry["args"].index("createRuntime")], "--version"]
    variables = dict(variable.split("=", 1) for variable in entry["env"])
    try:
        process = subprocess.run(
            argv,
            executable=entry["path"],
            env=variables,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CniError(IO_FAILURE, f"{entry['path']} cannot be started: {message(error)}") from None
    if process.returncode != 0:
        raise CniError(IO_FAILURE, f"{' '.join(argv)} fails: {one_line(process.stderr)}")


def _problem(path: str, stage: str) -> str:
    """Return why the engines would reject this file as it is now; empty if they would not."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        return message(error)
    if not isinstance(content, dict) or content.get("stages") != [stage]:
        return "its content is not what was written"
    program = content["hook"]["path"]
    missing = [file for file in (program, inject.launcher()) if not os.access(file, os.R_OK)]
    if missing:
        return f"{missing[0]} does not exist"
    if not os.access(program, os.X_OK):
        return f"{program} cannot be executed"
    return ""
