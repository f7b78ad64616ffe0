# SPDX-License-Identifier: Apache-2.0
"""
What `cnihook install` wrote below a prefix, in PREFIX/share/cnihook/installed.json:

    {"parts": ["commands", "man"], "compiled": true, "docker": {"before": "", "after": "{...}"},
     "folders": ["/usr/local/share/cnihook"], "files": {"/usr/local/bin/cnihook": ["SHA-256"]}}

It is written before the files, so that an installation that was killed can be removed, too.  A file that is
about to be replaced has two hashes: of the old text, and of the new one.
"""

import hashlib
import json
import os

from cnihook.cli.shared import files
from cnihook.fast import statefile
from cnihook.types.errors import DECODING_FAILURE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Manifest:
    def __init__(self, prefix: str) -> None:
        """Read the manifest of a prefix, if there is one.  Raises CniError or OSError."""
        self.folder = f"{prefix}/share/cnihook"
        self.path = f"{self.folder}/installed.json"
        self.parts: list[str] = []
        self.files: dict[str, list[str]] = {}
        self.folders: list[str] = []
        self.compiled = False
        self.docker: dict[str, str] = {}  # the texts of daemon.json before and after the change
        try:
            data = statefile.content(self.path)
            self.exists = data is not None
            if data is not None:
                self._load(json.loads(data))
        except (ValueError, KeyError, TypeError):
            raise CniError(
                DECODING_FAILURE,
                f"{self.path} is damaged",
                "remove it, then run `cnihook install` again, which finds its own files",
            ) from None

    def _load(self, value: "Any") -> None:
        self.parts = _texts(value["parts"])
        self.files = {path: _texts(hashes) for path, hashes in value["files"].items()}
        self.folders = _texts(value["folders"])
        self.compiled = value["compiled"] is True
        self.docker = dict(zip(value["docker"], _texts(list(value["docker"].values())), strict=True))
        if not all(os.path.isabs(path) for path in (*self.files, *self.folders)):
            raise ValueError
        if self.docker and set(self.docker) != {"before", "after"}:
            raise ValueError

    def write(self) -> None:
        value = {
            "parts": self.parts,
            "compiled": self.compiled,
            "docker": self.docker,
            "folders": self.folders,
            "files": self.files,
        }
        self.make_folder(self.folder)
        files.write(self.path, json.dumps(value, indent=1) + "\n", durable=True)

    def make_folder(self, path: str) -> None:
        """Make a folder, and remember the ones that were missing."""
        self.folders += files.make_folder(path)

    def has(self, path: str) -> bool:
        """Return True if a file is as it was written."""
        return digest_of(path) in self.files.get(path, [])


def _texts(value: "Any") -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError
    return value


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(path: str) -> str:
    """Return the hash of a file's content; empty for one that is missing or not regular."""
    data = statefile.read(path)
    return hashlib.sha256(data).hexdigest() if data is not None else ""
