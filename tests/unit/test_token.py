# SPDX-License-Identifier: Apache-2.0
"""oci.token: annotations under a seal of this machine, which nobody but root can make."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnihook.oci import token

WANTED = {"cnihook.networks": "mynet:eth1,other", "cnihook.publish": "80:80"}


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cnihook" / "key"
    monkeypatch.setattr(token, "KEY", str(path))
    return path


def test_what_is_sealed_can_be_opened(key: Path) -> None:
    sealed = token.seal(WANTED)

    assert token.opened(sealed) == WANTED
    assert set(sealed) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=.")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and os.listdir(key.parent) == ["key"]
    assert token.seal(WANTED) == sealed, "the key is made once"


def test_another_machine_cannot_open_it(key: Path) -> None:
    sealed = token.seal(WANTED)
    key.unlink()

    assert token.opened(sealed) is None
    token.seal({})
    assert token.opened(sealed) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # one key will do for all of them
@given(st.text())
def test_no_other_text_can_be_opened(text: str) -> None:
    sealed = token.seal(WANTED)

    assert token.opened(text) is None
    assert token.opened(f"{sealed}{text or 'x'}") is None
    assert token.opened(f"{text or 'x'}{sealed}") is None
    body, seal = sealed.split(".")
    assert token.opened(body) is token.opened(f"{body}.") is token.opened(f".{seal}") is None
    assert token.opened(f"{text}.{seal}") is None


def test_a_damaged_key_makes_no_seal_that_anybody_could_make(key: Path) -> None:
    token.seal(WANTED)
    key.write_bytes(b"")

    for use in (lambda: token.seal(WANTED), lambda: token.opened("x.y")):
        with pytest.raises(OSError, match="damaged"):
            use()
