# SPDX-License-Identifier: Apache-2.0
"""
Plugins that write down what they are given, and answer what they are told to.

A shell script, for it starts in 1 ms and runs wherever the suite does.  Under FOLDER it has `bin`, where it
stands under as many names as are wanted; `told`, with its answers; and `calls`, with a file for each call's
environment and standard input, in the order of the `log`.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCRIPT = """\
#!/bin/sh
type=${0##*/}
here=${0%/bin/*}
call=$here/calls/$$
/usr/bin/env -0 > "$call.env"
PATH=/usr/local/bin:/usr/bin:/bin
[ -e "$here/told/$type.unread" ] || cat > "$call.stdin"
printf '%s %s %s\\n' "$$" "$type" "$CNI_COMMAND" >> "$here/log"
for answer in "$here/told/$type.$CNI_COMMAND.$CNI_CONTAINERID" "$here/told/$type.$CNI_COMMAND"; do
  [ -e "$answer" ] || continue
  [ ! -e "$answer.stderr" ] || cat "$answer.stderr" >&2
  cat "$answer"
  [ ! -e "$answer.status" ] || exit "$(cat "$answer.status")"
  exit 0
done
"""


@dataclass
class Call:
    type: str
    command: str
    variables: "dict[str, str]"
    stdin: str

    @property
    def conf(self) -> "dict[str, Any]":
        try:
            found = json.loads(self.stdin)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class StandIns:
    def __init__(self, folder: Path, *types: str) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self._told = folder / "told"
        self._calls = folder / "calls"
        for made in (self.bin, self._told, self._calls):
            made.mkdir(parents=True)
        for name in types:
            script = self.bin / name
            script.write_text(_SCRIPT)
            script.chmod(0o755)
            self.answer(name, "VERSION", _VERSIONS)

    def answer(
        self,
        plugin: str,
        command: str,
        answer: "Any" = None,
        *,
        container_id: str = "",
        status: int = 0,
        stderr: str = "",
    ) -> None:
        """What it says to a command: JSON, or text as it is."""
        path = self._told / ".".join(filter(None, (plugin, command, container_id)))
        path.write_text(answer if isinstance(answer, str) else "" if answer is None else json.dumps(answer))
        for suffix, content in ((".status", str(status) if status else ""), (".stderr", stderr)):
            beside = Path(f"{path}{suffix}")
            if content:
                beside.write_text(content)
            else:
                beside.unlink(missing_ok=True)

    def fail(self, plugin: str, command: str, code: int = 100, msg: str = "told to fail") -> None:
        error = {"cniVersion": "1.0.0", "code": code, "msg": msg}
        self.answer(plugin, command, error, status=1)

    def leave_unread(self, plugin: str) -> None:
        (self._told / f"{plugin}.unread").touch()

    def calls(self, *commands: str) -> "list[Call]":
        """All so far, the first one first; with `commands`, those alone."""
        try:
            lines = (self.folder / "log").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            number, name, command = [*line.split(" "), ""][:3]
            if commands and command not in commands:
                continue
            pairs = (self._calls / f"{number}.env").read_bytes().split(b"\0")
            variables = dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)
            stdin = self._calls / f"{number}.stdin"
            text = stdin.read_text(errors="replace") if stdin.exists() else ""
            found.append(Call(name, command, variables, text))
        return found

    def forget(self) -> None:
        """The calls so far."""
        for path in (self.folder / "log", *self._calls.iterdir()):
            path.unlink(missing_ok=True)


_VERSIONS = {
    "cniVersion": "1.1.0",
    "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
}
