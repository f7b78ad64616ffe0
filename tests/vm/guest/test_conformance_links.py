# SPDX-License-Identifier: Apache-2.0
"""cnihook conformance on links that not every kernel has, and the reference's known faults with them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.cni import CHECKOUT, REFERENCE
from tests.support.namespace import base_environment

# Processors are slow in here, so no more than what these plugins do in their own way.
CHECKS = [
    "add", "result-interface", "result-dns", "del-host-links-gone", "del-link-gone", "check-route",
    "delegate-refuses-clean", "delegate-released",
]  # fmt: skip
PLUGINS = ["ipvlan", "vlan", "vrf"]


@pytest.fixture
def implementation() -> None:
    """The suite starts plugins itself."""


def conformance() -> list[dict[str, Any]]:
    """Not in a host of the tests: in here that is an overlay on an overlay, and a third one is refused."""
    chosen = [word for name in CHECKS for word in ("--check", name)]
    paths = [str(REFERENCE / plugin) for plugin in PLUGINS]
    cnihook = str(Path(CHECKOUT, "scripts", "cnihook"))
    argv = [cnihook, "conformance", *paths, *chosen, "--json", "-"]
    done = subprocess.run(argv, capture_output=True, text=True, env=base_environment(), timeout=400)
    assert done.stderr == ""
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return results


def test_faults_of_the_reference_are_found_under_a_kernel_that_has_its_links() -> None:
    found: dict[str, list[tuple[str, str]]] = {"passed": [], "failed": [], "note": [], "skipped": []}
    for one in conformance():
        found[one["outcome"]].append((one["subject"], one["check"]))

    assert sorted(found["failed"]) == [
        ("ipvlan", "check-route"),
        ("vlan", "check-route"),
        ("vrf", "del-link-gone"),
    ]
    assert sorted(found["note"]) == [
        ("ipvlan", "delegate-refuses-clean"),
        ("ipvlan", "delegate-released"),
        ("ipvlan", "result-dns"),
        ("vlan", "del-host-links-gone"),
        ("vlan", "delegate-refuses-clean"),
        ("vlan", "result-dns"),
        ("vrf", "del-host-links-gone"),
    ]
    assert {("ipvlan", "add"), ("vlan", "add"), ("vrf", "add")} <= set(found["passed"])
