# SPDX-License-Identifier: Apache-2.0
"""cnihook hooks.d: the hook for every container of podman and CRI-O that has an annotation of ours."""

import json
import os
import shutil
import subprocess

from cnihook.cli import arguments
from cnihook.cli.arguments import Parser
from cnihook.lean.words import in_words, one_line
from cnihook.log import complain
from cnihook.oci import inject, podman, wants, words
from cnihook.spec.errors import IO_FAILURE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Both engines read the first.  Podman takes a file of the same name in the second for it.
DEFAULT = "/usr/share/containers/oci/hooks.d"
OVERRIDE = "/etc/containers/oci/hooks.d"

DESCRIPTION = f"""\
Put two files into DIR, by which podman and CRI-O run the hook for every container with an annotation
{wants.PREFIX}* or {words.MULTUS}; see oci-hooks(5).


  podman run --network none --annotation {wants.NETWORKS}=mynet IMAGE
"""

EPILOG = f"""\
As root podman reads {DEFAULT} unasked; rootless, what --hooks-dir names.
Podman before 4.6 copies the annotations of an image into the container, so that an image can request
networks and ports.  There install fails without --trust-images, and so does the hook.
Under CRI-O they have no effect on pods: the containers of a pod join its network namespace, which CRI-O
attaches, or share the host's; both are left alone, with a line in their logs.  CRI-O rejects entries of
allowed_annotations that it does not know, such as those of cnihook.
Remove the files before cnihook itself: while they name a program that is not there, these engines start
no container at all.
"""


def parser() -> Parser:
    made = Parser("hooks.d", DESCRIPTION, EPILOG)
    made.add_argument("action", choices=["install", "remove"], help="both files")
    made.add_argument(
        "--dir", metavar="DIR", type=arguments.path, default=DEFAULT, help=f"default: {DEFAULT}"
    )
    made.add_bounds()
    made.add_argument(
        "--trust-images", action="store_true", help="also obey annotations that may be an image's"
    )
    made.add_conf_folder()
    made.add_plugin_folders()
    return made


def main(argv: list[str]) -> int:
    found = parser().parse_args(argv)

    def work() -> None:
        try:
            if found.action == "install":
                if not found.trust_images:
                    _check_podman()
                bounds = arguments.bounds_of(found)
                bounds += ["--trust-images"] if found.trust_images else []
                _install(found.dir, arguments.environment_of(found), bounds)
            else:
                _remove(found.dir)
        except OSError as error:
            raise CniError(IO_FAILURE, in_words(error)) from None

    return arguments.work(f"hooks.d {found.action}", work)


def _path(folder: str, stage: str) -> str:
    """Named to come last: where a hook behind ours fails, crun never has ours take down again."""
    return f"{folder}/90-cnihook-{stage}.json"


def _content(stage: str, environment: dict[str, str], bounds: list[str]) -> "dict[str, Any]":
    """One file a stage: it has one list of arguments, by which the hook tells the stages apart."""
    names = (wants.PREFIX.replace(".", r"\."), words.MULTUS.replace(".", r"\.") + "$")
    return {
        "version": "1.0.0",
        "hook": inject.hook(stage, environment, bounds),
        "when": {"annotations": {f"^({'|'.join(names)})": ".*"}},
        "stages": [stage],
    }


def _check_podman() -> None:
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
        "use podman 4.6 or newer, or cni-runc; --trust-images installs the hook all the same",
    )


def _install(folder: str, environment: dict[str, str], bounds: "list[str] | None" = None) -> None:
    foreign = [_path(folder, stage) for stage in inject.STAGES if not _is_free(folder, stage)]
    if foreign:
        raise CniError(
            IO_FAILURE, f"{foreign[0]} is somebody else's, left as it is", "--dir names another folder"
        )
    _try_hook(environment)
    os.makedirs(folder, exist_ok=True)
    # What takes down comes first: nobody shall be attached who would not be detached.
    for stage in reversed(inject.STAGES):
        path = _path(folder, stage)
        _write(path, json.dumps(_content(stage, environment, bounds or []), indent=2) + "\n")
        problem = _problem(path, stage)
        if problem:
            for written in inject.STAGES:  # one bad file, and the engine starts no container
                if os.path.lexists(_path(folder, written)):
                    os.unlink(_path(folder, written))
            raise CniError(IO_FAILURE, f"{path}: {problem}; it is removed again")
    for stage in inject.STAGES:
        masking = _path(OVERRIDE, stage)
        if folder == DEFAULT and os.path.lexists(masking):
            complain(f"hooks.d install: podman takes {masking} in the place of {_path(folder, stage)}")


def _remove(folder: str) -> None:
    for stage in inject.STAGES:
        if os.path.lexists(_path(folder, stage)):
            if not _is_free(folder, stage):
                raise CniError(IO_FAILURE, f"{_path(folder, stage)} is somebody else's, left as it is")
            os.unlink(_path(folder, stage))


def _is_free(folder: str, stage: str) -> bool:
    """Nothing is there, or what is there is ours."""
    path = _path(folder, stage)
    if not os.path.lexists(path):
        return True
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and inject.is_ours(content.get("hook"), stage)


def _write(path: str, text: str) -> None:
    """Whole or not at all: CRI-O reads each file as soon as it is there.  No name in .json until then."""
    temporary = f"{path}.new"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise


def _try_hook(environment: dict[str, str]) -> None:
    """The hook's program can be started, as the engine will."""
    entry = inject.hook("createRuntime", environment)
    argv = [*entry["args"][: entry["args"].index("createRuntime")], "--version"]
    variables = dict(variable.split("=", 1) for variable in entry["env"])
    try:
        done = subprocess.run(
            argv,
            executable=entry["path"],
            env=variables,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CniError(IO_FAILURE, f"{entry['path']} cannot be started: {in_words(error)}") from None
    if done.returncode != 0:
        raise CniError(IO_FAILURE, f"{' '.join(argv)} fails: {one_line(done.stderr)}")


def _problem(path: str, stage: str) -> str:
    """Why the engines would refuse what is in this file by now; empty if they would not."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        return in_words(error)
    if not isinstance(content, dict) or content.get("stages") != [stage]:
        return "it is not what was written"
    program = content["hook"]["path"]
    missing = [file for file in (program, inject.launcher()) if not os.access(file, os.R_OK)]
    if missing:
        return f"{missing[0]} is not there"
    if not os.access(program, os.X_OK):
        return f"{program} cannot be executed"
    return ""
