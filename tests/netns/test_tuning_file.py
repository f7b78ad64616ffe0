# SPDX-License-Identifier: Apache-2.0
"""tuning: the file with the values before ADD, and what DEL restores from it."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.netns.differences import OLD_KEYS
from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.plugins.tuning import (
    ALL,
    FILE,
    FILES,
    MAC,
    OWN_MAC,
    SOMAXCONN,
    add,
    conf,
    state,
    untuned,
)


@pytest.fixture
def container(host: Host) -> Container:
    return untuned(host)


def test_file_has_the_values_before_add(host: Host, container: Container) -> None:
    add(host, container, conf(**ALL, dataDir="/run/mine"))
    host.leaves("dir /run/mine")

    before = json.loads(host.read("/run/mine/c1_eth0.json"))

    assert before == before | {"mac": OWN_MAC, "mtu": 1500, "promisc": False, "allmulti": False}
    path = host.root / "run/mine/c1_eth0.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.known_difference("makes its folder with mode 0600", here="0700", right="either")
def test_only_root_can_enter_the_folder_of_the_files(host: Host, container: Container) -> None:
    add(host, container, conf(mtu=1400))

    assert stat.S_IMODE((host.root / FILES.lstrip("/")).stat().st_mode) == 0o700


@pytest.mark.parametrize("other", ["builtin", "reference"])
def test_the_other_implementation_can_restore_the_values(
    host: Host, container: Container, implementations: dict[str, cni.Implementation], other: str
) -> None:
    """A host may change from one implementation to the other while containers run."""
    before = state(container)
    add(host, container, conf(**ALL, sysctl={"net.core.somaxconn": "77"}))

    host.implementation = implementations[other]
    host.delete_attachments()

    assert state(container) == before
    assert not host.exists(FILE)


@pytest.mark.known_difference(
    "the second tuning of a chain overwrites what the first saved",
    here="DEL undoes both",
    right="SPEC.md, 2 DEL",
)
def test_two_in_one_chain_are_both_undone(host: Host, container: Container) -> None:
    before = state(container)
    first = conf(mtu=1400, promisc=True)
    second = conf(mtu=1300, mac=MAC)
    for one in (first, second):
        add(host, container, one)

    for one in (second, first):
        host.cni("DEL", one, container)

    assert state(container) == before


@OLD_KEYS
@pytest.mark.parametrize("place", [(), ("args", "cni")], ids=["network", "args.cni"])
def test_setting_that_occurs_twice_is_refused(
    host: Host, container: Container, place: tuple[str, ...]
) -> None:
    """A JSON parser keeps the last of two, but the text that the plugin gets has both."""
    assert host.implementation
    keys: Any = {"sysctl": {"net.core.somaxconn": "77", "twin": "78"}}
    for name in reversed(place):
        keys = {name: keys}
    attachment = cni.Attachment(conf(), container, "eth0", "tuning", {})
    answer = host.run(
        host.implementation.program("tuning"),
        env=attachment.environment("ADD", Path("/x")),
        input=json.dumps(conf(**keys)).replace("twin", "net.core.somaxconn"),
        check=False,
    )

    assert answer.returncode != 0
    assert any(words in answer.stdout for words in ("duplicated sysctl keys", "is there more than once"))
    assert container.sysctl(SOMAXCONN) not in ("77", "78")
