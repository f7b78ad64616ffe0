# SPDX-License-Identifier: Apache-2.0
"""The runtime `cni` in the configuration of the docker daemon.  The rest of the file is not changed."""

import json
import os

from cnihook.cli.shared import files
from cnihook.oci import engines, inject
from cnihook.oci.json_edit import JsonDocument
from cnihook.types.errors import DECODING_FAILURE, IO_FAILURE, CniError

PATH = engines.DOCKER_SETTINGS
NAME = "cni"


def read() -> str:
    """Return the file's text; empty without a file.  Raises CniError or OSError."""
    return inject.read(PATH).text if os.path.lexists(PATH) else ""


def with_runtime(text: str, program: str) -> str:
    """Return the text with the runtime.  Raises CniError if it has another one of this name."""
    if not text:
        return json.dumps({"runtimes": {NAME: {"path": program}}}, indent=2) + "\n"
    document = JsonDocument(text)
    runtimes = document.get("runtimes")
    if runtimes is None:
        document.set({}, "runtimes")
    elif not isinstance(runtimes, dict):
        raise CniError(DECODING_FAILURE, f"{PATH}: runtimes must be an object")
    runtime = document.get("runtimes", NAME)
    if runtime is None:
        document.set({"path": program}, "runtimes", NAME)
    elif not isinstance(runtime, dict) or runtime.get("path") != program:
        raise CniError(
            IO_FAILURE,
            f"{PATH}: the runtime {NAME} is another program, left as it is",
            "remove it, or give it another name",
        )
    return document.text


def without_runtime(text: str, program: str) -> str:
    """Return the text without the runtime, if it is this program.  Raises CniError if it is the default."""
    if not text:
        return text
    document = JsonDocument(text)
    runtime = document.get("runtimes", NAME)
    if not isinstance(runtime, dict) or runtime.get("path") != program:
        return text
    if document.get("default-runtime") == NAME:
        raise CniError(
            IO_FAILURE, f"{PATH}: default-runtime is {NAME}", "remove this key, then restart docker"
        )
    document.remove("runtimes", NAME)
    return document.text


def has_runtimes(text: str) -> bool:
    return bool(text) and JsonDocument(text).get("runtimes") is not None


def write(text: str) -> None:
    """Replace the file; an empty text removes it.  Raises OSError."""
    if not text:
        os.unlink(PATH)
    elif os.path.lexists(PATH):
        inject.write(PATH, text, durable=True)
    else:
        files.write(PATH, text, durable=True)
