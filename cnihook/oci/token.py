# SPDX-License-Identifier: Apache-2.0
"""
What a container wants, for engines that hand on its environment and no annotations: docker before 25.

The variable CNIHOOK_WANTS holds annotations under a seal that takes a key of this machine's root.  So an
image, which may have variables of its own, cannot ask for networks.  The seal and nothing else: with a file
for each container, somebody would have to know when it is needed no more, and it would be missed after a
reboot by containers that docker starts again.

    TOKEN = base64url(ANNOTATIONS as JSON) "." hex(BLAKE2b-128 of what is before the dot, keyed)
"""

import binascii
import os
from _blake2 import blake2b

from cnihook.lean import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "CNIHOOK_WANTS"
KEY = "/var/lib/cnihook/key"

_KEY_LENGTH = 32  # bytes


def seal(annotations: "Mapping[str, str]") -> str:
    """The token for these annotations.  Makes the key where there is none yet.  Raises OSError."""
    body = _encode(fastjson.dumps(dict(annotations)).encode())
    return f"{body}.{_seal(body, _read_key() or _make_key())}"


def opened(token: str) -> "dict[str, str] | None":
    """The annotations under a seal of this machine; None for any other text."""
    body, _, seal_found = token.partition(".")
    key = _read_key()
    if not key or not _is_same(seal_found, _seal(body, key)):
        return None
    found: dict[str, str] = fastjson.loads(binascii.a2b_base64(body.translate(_STANDARD)).decode())
    return found


_STANDARD = {ord("-"): "+", ord("_"): "/"}
_URL = {ord("+"): "-", ord("/"): "_"}


def _encode(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode().translate(_URL)


def _seal(body: str, key: bytes) -> str:
    return blake2b(body.encode(errors="surrogateescape"), key=key, digest_size=16).hexdigest()


def _is_same(one: str, other: str) -> bool:
    """Takes the same time wherever the two differ."""
    from _operator import _compare_digest

    return _compare_digest(one.encode(errors="surrogateescape"), other.encode())


def _read_key() -> bytes:
    """Empty where there is none, or for nobody but root."""
    try:
        with open(KEY, "rb") as file:
            key = file.read(_KEY_LENGTH)
    except (FileNotFoundError, PermissionError):
        return b""
    if len(key) < _KEY_LENGTH:  # a seal by an empty key is one that everybody can make
        raise OSError(
            22, "it is damaged; remove it, and containers that were given a token need a new one", KEY
        )
    return key


def _make_key() -> bytes:
    os.makedirs(os.path.dirname(KEY), mode=0o755, exist_ok=True)
    temporary = f"{KEY}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(os.urandom(_KEY_LENGTH))
            file.flush()
            os.fsync(fd)
        try:
            os.link(temporary, KEY)  # which fails where another was quicker; then theirs is the key
        except FileExistsError:
            pass
    finally:
        os.unlink(temporary)
    return _read_key()
