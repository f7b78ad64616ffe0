# SPDX-License-Identifier: Apache-2.0
"""cnihook conformance with kinds of links that not every kernel has: it finds the reference's faults."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.host.namespace import base_environment
from tests.support.plugins.cni import CHECKOUT, REFERENCE

# The guest's processor is slow, so only checks in which these plugins differ from others.
CHECKS = [
    "add", "result-interface", "result-dns", "del-host-links-gone", "del-link-gone", "check-route",
    "delegate-refuses-clean", "delegate-released",
]  # fmt: skip
PLUGINS = ["ipvlan", "vlan", "vrf"]


@pytest.fixture
def implementation() -> None:
    """Run once, because the suite starts plugins itself."""


def conformance() -> list[dict[str, Any]]:
    """Run the suite on the guest itself and return its results.

    A throw-away host of the tests is an overlay on the guest's overlay, and the kernel rejects a third one.
    """
    chosen = [word for name in CHECKS for word in ("--check", name)]
    paths = [str(REFERENCE / plugin) for plugin in PLUGINS]
    cnihook = str(Path(CHECKOUT, "scripts", "cnihook"))
    argv = [cnihook, "conformance", *paths, *chosen, "--json", "-"]
    process = subprocess.run(argv, capture_output=True, text=True, env=base_environment(), timeout=400)
    assert process.stderr == ""
    results: list[dict[str, Any]] = json.loads(process.stdout)["results"]
    return results


def test_faults_of_the_reference_are_found_on_a_kernel_with_its_links() -> None:
    results: dict[str, list[tuple[str, str]]] = {"passed": [], "failed": [], "note": [], "skipped": []}
    for one in conformance():
        results[one["outcome"]].append((one["subject"], one["check"]))

    assert sorted(results["failed"]) == [
        ("ipvlan", "check-route"),
        ("vlan", "check-route"),
        ("vrf", "del-link-gone"),
    ]
    assert sorted(results["note"]) == [
        ("ipvlan", "delegate-refuses-clean"),
        ("ipvlan", "delegate-released"),
        ("ipvlan", "result-dns"),
        ("vlan", "del-host-links-gone"),
        ("vlan", "delegate-refuses-clean"),
        ("vlan", "result-dns"),
        ("vrf", "del-host-links-gone"),
    ]
    assert {("ipvlan", "add"), ("vlan", "add"), ("vrf", "add")} <= set(results["passed"])
