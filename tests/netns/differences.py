# SPDX-License-Identifier: Apache-2.0
"""Marks for what the reference does otherwise in more than one test; `pytest -rx` prints all of them."""

import pytest

SPEC_1_1 = pytest.mark.known_difference("plugins 1.1.1 speak the specification up to 1.0.0")
OLD_KEYS = pytest.mark.known_difference("plugins 1.1.1 do not know the key yet")
LEAKS_LINK = pytest.mark.known_difference("an ADD that fails after the links are made leaves them")
LEAVES_RULES = pytest.mark.known_difference("its chains stay, and without prevResult its rules")
NO_LEGACY = pytest.mark.known_difference("it uses one kind of iptables, where a host may have two")
LEAKS_INVALID = pytest.mark.known_difference(
    "what conntrack calls invalid leaves with the container's address"
)
