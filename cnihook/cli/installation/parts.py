# SPDX-License-Identifier: Apache-2.0
"""The files of each part of an installation, in the order in which they are written."""

import os
import sysconfig
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cnihook import codecache
from cnihook.cli import completion, hooks_d, install_plugins, man
from cnihook.cli.installation.part_names import (
    COMMANDS,
    COMPLETION,
    CONTAINERD,
    HOOKS_D,
    MAN,
    SYSTEMD,
)
from cnihook.cli.shared import launcher
from cnihook.oci import inject
from cnihook.protocol import invoke
from cnihook.request import option_table

PLUGINS = "/opt/cni/bin"  # of containerd's CRI plugin, and of Kubernetes

_SYSTEM = ("/usr", "/usr/local")  # below these, systemd finds units
_MARK = "# A program of cnihook; `cnihook uninstall` removes it."
# program: the module of its `main`, and the argument
_PROGRAMS = {
    "cnihook": ("cli.main", ""),
    "cni-runc": ("cli.cni_runc", "umask"),
    "cni-crun": ("cli.cni_runc", "umask"),
    "docker-run": ("cli.docker.run", "umask"),
    "priv-net-run": ("cli.priv_net_run", "umask"),
}
_COMPLETED = ("cnihook", option_table.PRIV_NET_RUN, option_table.DOCKER_RUN)
# As a file of zsh, the script is the body of the function _cnihook, which has to complete at once.
_ZSH_FILE = """\
#compdef {names}
{script}
if [[ ${{funcstack[1]}} == _cnihook ]]; then
  _cnihook "$@"
fi
"""


class File(NamedTuple):
    """A file of an installation.  `is_ours`: True for the path of a file that cnihook may replace."""

    path: str
    text: str
    mode: int = 0o644
    is_ours: "Callable[[str], bool]" = lambda path: False


def runtime(prefix: str) -> str:
    """Return the path of the runtime that docker starts."""
    return f"{prefix}/bin/cni-runc"


def files(part: str, prefix: str) -> list[File]:
    """Return the files of a part below a prefix, in the order in which they are written."""
    return list(_FILES[part](prefix)) if part in _FILES else []


def _commands(prefix: str) -> Iterator[File]:
    for name, (module, argument) in _PROGRAMS.items():
        path = f"{prefix}/bin/{name}"
        if not _is_own_command(path):
            yield File(path, launcher.text(_MARK, module, argument), 0o755, _has_mark)


def _is_own_command(path: str) -> bool:
    """Return True for a command of this installation: of pip or pipx, or a link to the checkout."""
    root = os.path.dirname(codecache.PACKAGE)
    by_pip = root == os.path.realpath(sysconfig.get_path("purelib"))
    folder = os.path.realpath(sysconfig.get_path("scripts") if by_pip else f"{root}/scripts")
    return os.path.isfile(path) and os.path.dirname(os.path.realpath(path)) == folder and not _has_mark(path)


def _has_mark(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return _MARK in file.read(1000)
    except OSError:
        return False


def _man(prefix: str) -> Iterator[File]:
    for name, path in man.paths(f"{prefix}/share/man"):
        yield File(path, man.page(name), is_ours=man.is_ours)


def _completion(prefix: str) -> Iterator[File]:
    bash, fish = completion.script("bash"), completion.script("fish")
    zsh = _ZSH_FILE.format(names=" ".join(_COMPLETED), script=completion.script("zsh"))
    for name in _COMPLETED:  # both shells look for a file with the name of the command
        yield File(f"{prefix}/share/bash-completion/completions/{name}", bash)
        yield File(f"{_fish_folder(prefix)}/{name}.fish", fish)
    folder = "vendor-completions" if prefix == "/usr" else "site-functions"
    yield File(f"{prefix}/share/zsh/{folder}/_cnihook", zsh)


def _fish_folder(prefix: str) -> str:
    """Return the folder of completions that fish reads; it reads none below /usr/local."""
    return "/etc/fish/completions" if prefix == "/usr/local" else f"{prefix}/share/fish/vendor_completions.d"


def _systemd(prefix: str) -> Iterator[File]:
    folder = f"{prefix}/lib/systemd/system" if prefix in _SYSTEM else "/etc/systemd/system"
    source = f"{codecache.PACKAGE}/systemd"
    for name in sorted(os.listdir(source)):
        if name.endswith((".path", ".service", ".socket", ".timer")):
            with open(f"{source}/{name}", encoding="utf-8") as file:
                text = file.read().replace("/usr/local/bin/cnihook", f"{prefix}/bin/cnihook")
            yield File(f"{folder}/{name}", text)


def _containerd(prefix: str) -> Iterator[File]:
    for plugin in invoke.built_in_types():
        path = f"{PLUGINS}/{plugin}"
        yield File(path, install_plugins.content(plugin), 0o755, install_plugins.is_ours)


def _hooks_d(prefix: str) -> Iterator[File]:
    for stage in reversed(inject.STAGES):  # first poststop, as hooks_d does
        path = hooks_d.path_of(hooks_d.DEFAULT, stage)
        yield File(path, hooks_d.content(stage, os.environ), is_ours=_is_own_hook)


def _is_own_hook(path: str) -> bool:
    folder, name = os.path.split(path)
    stage = name.removesuffix(".json").rpartition("-")[2]
    return hooks_d.is_free(folder, stage)


_FILES = {
    COMMANDS: _commands,
    MAN: _man,
    COMPLETION: _completion,
    SYSTEMD: _systemd,
    CONTAINERD: _containerd,
    HOOKS_D: _hooks_d,
}
