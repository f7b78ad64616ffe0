# SPDX-License-Identifier: Apache-2.0
"""All readers of cnihook for input of other programs, each with its seeds."""

from tests.support.fuzz import configurations, files, wire
from tests.support.fuzz.target import Broken, Target

TARGETS: dict[str, Target] = {
    target.name: target for target in (*configurations.TARGETS, *files.TARGETS, *wire.TARGETS)
}


def _self_test(data: bytes) -> None:
    """Fail as a faulty reader would."""
    if data.startswith(b"a") and b"\xff" in data:
        raise Broken("the engines must find this")


SELF_TEST = Target("self-test", _self_test, (), (b"abc",))
