# SPDX-License-Identifier: Apache-2.0
"""One call of a plugin's executable, and its answer."""

import fcntl
import json
import os
import re
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnihook.conformance.check import CheckFailed, Deviation

TIMEOUT = 20.0  # seconds: a plugin that takes longer counts as hanging
_ADMINISTRATORS = "/usr/local/sbin:/usr/sbin:/sbin"
_SHOWN = 1500  # characters of what was sent or received
# Variables that a plugin must not inherit: those of CNI and cnihook, and those of the suite's own Python.
_OURS = re.compile(r"CNI_|PYTHON|CNIHOOK_|NETCONFPATH$|CAP_ARGS$")

CLOSED = b"<closed>"  # as standard input: no descriptor 0 at all


@dataclass
class Answer:
    command: str
    variables: "dict[str, str]"  # those of CNI
    stdin: bytes
    status: int = 0
    stdout: str = ""
    stderr: str = ""
    timed_out: bool = field(default=False)

    @property
    def sent(self) -> str:
        variables = " ".join(f"{key}={value!r}" for key, value in self.variables.items())
        return f"{variables}\nstdin: {cut(self.stdin.decode(errors='replace'))}"

    @property
    def came(self) -> str:
        how = f"nothing within {TIMEOUT:g} s" if self.timed_out else f"exit {self.status}"
        return f"{how}\nstdout: {cut(self.stdout)}\nstderr: {cut(self.stderr)}"

    def expect_success(self, what: str) -> None:
        if self.timed_out:
            raise CheckFailed(f"{what}: no answer within {TIMEOUT:g} s")
        if self.status != 0:
            raise CheckFailed(f"{what}: refused with exit {self.status}: {self._reason()}")

    def _reason(self) -> str:
        try:
            error = self.error()
        except CheckFailed:
            return cut(self.stdout or self.stderr, 200)
        return f"code {error.get('code')}: {error.get('msg')} {error.get('details', '')}".rstrip()

    def result(self, what: str = "ADD") -> "dict[str, Any]":
        """Return the result of a successful ADD.

        Log lines before it are skipped: only the check `add-only-json` reports them.
        """
        self.expect_success(what)
        start = re.search(r"^\s*\{", self.stdout, re.MULTILINE)
        try:
            result, _ = json.JSONDecoder().raw_decode(self.stdout[start.start() :].lstrip() if start else "")
        except ValueError as error:
            raise CheckFailed(f"{what}: the result is not JSON: {error}") from None
        if not isinstance(result, dict):
            raise CheckFailed(f"{what}: the result is not a JSON object")
        return result

    def error(self) -> "dict[str, Any]":
        """Return the error, which must be the only output on stdout."""
        try:
            raw = json.loads(self.stdout)
        except ValueError as error:
            raise Deviation(f"{self.command}: the error on stdout is not JSON: {error}") from None
        if not isinstance(raw, dict):
            raise Deviation(f"{self.command}: the error on stdout is not a JSON object")
        return raw

    def looks_like_error(self) -> bool:
        """Return True if stdout has the keys of an error."""
        try:
            error = json.loads(self.stdout)
        except ValueError:
            return False
        return isinstance(error, dict) and "code" in error and "msg" in error

    def expect_error(self, what: str, codes: Sequence[int] = (), names: Sequence[str] = ()) -> None:
        """Raise Broken if the call succeeds, crashes the plugin or does not end.

        SPEC.md, "Errors": a plugin must exit with a status other than 0, and should print an error.  So an
        error that is not JSON, has a code that is not in `codes`, or lacks one of `names`, is a Deviation.
        """
        if self.timed_out:
            raise CheckFailed(f"{what}: no answer within {TIMEOUT:g} s")
        if self.status == 0:
            raise CheckFailed(f"{what}: was not refused: exit 0")
        if self.status < 0:
            raise CheckFailed(f"{what}: killed by signal {-self.status}")
        error = self.error()
        code = error.get("code")
        if not isinstance(code, int) or isinstance(code, bool) or not isinstance(error.get("msg"), str):
            raise Deviation(f'{what}: the error must have "code", a number, and "msg", a string')
        if codes and code not in codes:
            expected = " or ".join(str(code) for code in codes)
            raise Deviation(f"{what}: refused with code {code} ({error['msg']}), expected {expected}")
        text = f"{error['msg']} {error.get('details', '')}"
        missing = [word for word in names if word not in text]
        if missing:
            raise Deviation(f"{what}: the error does not name {', '.join(missing)}: {text.strip()}")


def environment(variables: Mapping[str, str]) -> "dict[str, str]":
    kept = {key: value for key, value in os.environ.items() if not _OURS.match(key)}
    path = f"{kept.get('PATH', os.defpath)}:{_ADMINISTRATORS}"
    return {**kept, "PATH": path, **variables}


def start(
    executable: str, variables: Mapping[str, str], *, stdin: int = subprocess.PIPE
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [executable],
        env=environment(variables),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
    )


def finish(process: "subprocess.Popen[bytes]", variables: Mapping[str, str], stdin: bytes) -> Answer:
    answer = Answer(variables.get("CNI_COMMAND", ""), dict(variables), stdin)
    try:
        stdout, stderr = process.communicate(stdin if process.stdin else None, TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        answer.timed_out = True
    answer.status = process.returncode
    answer.stdout, answer.stderr = stdout.decode(errors="replace"), stderr.decode(errors="replace")
    return answer


def call(executable: str, variables: Mapping[str, str], stdin: bytes, *, in_parts: bool = False) -> Answer:
    """Call a plugin.  `in_parts`: write the configuration's second half after the first has been read."""
    if stdin is CLOSED:
        closing = ["/bin/sh", "-c", 'exec "$0" <&-', executable]
        process = subprocess.Popen(
            closing, env=environment(variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
        )
        return finish(process, variables, stdin)
    process = start(executable, variables)
    rest = stdin
    if in_parts and process.stdin:
        half = len(stdin) // 2
        try:
            process.stdin.write(stdin[:half])
            process.stdin.flush()
            _wait_until_read(process)
            rest = stdin[half:]
        except BrokenPipeError:
            rest = b""
    answer = finish(process, variables, rest)
    answer.stdin = stdin
    return answer


def _wait_until_read(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        unread = fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4))
        if not any(unread):
            return
        time.sleep(0.005)


def cut(text: str, limit: int = _SHOWN) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
