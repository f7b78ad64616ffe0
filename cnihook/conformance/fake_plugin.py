# SPDX-License-Identifier: Apache-2.0
"""
Stand-in plugins, which record their calls and print the answers that a check has set.

Each is a shell script, because that starts in 1 ms and runs wherever the suite does.  FOLDER holds `bin`
with the script under each plugin's name, `answers`, and `calls` with two files for each call: one
for its environment and one for its standard input.  `log` lists the calls in order.
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
[ -e "$here/answers/$type.unread" ] || cat > "$call.stdin"
printf '%s %s %s\\n' "$$" "$type" "$CNI_COMMAND" >> "$here/log"
for answer in "$here/answers/$type.$CNI_COMMAND.$CNI_CONTAINERID" "$here/answers/$type.$CNI_COMMAND"; do
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
            conf = json.loads(self.stdin)
        except ValueError:
            return {}
        return conf if isinstance(conf, dict) else {}


class FakePlugins:
    def __init__(self, folder: Path, *types: str) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self._answers = folder / "answers"
        self._calls = folder / "calls"
        for part in (self.bin, self._answers, self._calls):
            part.mkdir(parents=True)
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
        """Set a plugin's answer to an operation: a value to print as JSON, or text to print as it is."""
        path = self._answers / ".".join(filter(None, (plugin, command, container_id)))
        path.write_text(answer if isinstance(answer, str) else "" if answer is None else json.dumps(answer))
        for suffix, content in ((".status", str(status) if status else ""), (".stderr", stderr)):
            beside = Path(f"{path}{suffix}")
            if content:
                beside.write_text(content)
            else:
                beside.unlink(missing_ok=True)

    def fail(
        self, plugin: str, command: str, code: int = 100, msg: str = "this check makes it fail"
    ) -> None:
        error = {"cniVersion": "1.0.0", "code": code, "msg": msg}
        self.answer(plugin, command, error, status=1)

    def leave_unread(self, plugin: str) -> None:
        (self._answers / f"{plugin}.unread").touch()

    def calls(self, *commands: str) -> "list[Call]":
        """Return the calls so far in order.  With `commands`, only calls of these operations."""
        try:
            lines = (self.folder / "log").read_text().splitlines()
        except FileNotFoundError:
            return []
        calls = []
        for line in lines:
            number, name, command = [*line.split(" "), ""][:3]
            if commands and command not in commands:
                continue
            pairs = (self._calls / f"{number}.env").read_bytes().split(b"\0")
            variables = dict(os.fsdecode(pair).split("=", 1) for pair in pairs if b"=" in pair)
            stdin = self._calls / f"{number}.stdin"
            text = stdin.read_text(errors="replace") if stdin.exists() else ""
            calls.append(Call(name, command, variables, text))
        return calls

    def forget(self) -> None:
        """Delete the record of the calls so far."""
        for path in (self.folder / "log", *self._calls.iterdir()):
            path.unlink(missing_ok=True)


_VERSIONS = {
    "cniVersion": "1.1.0",
    "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
}
