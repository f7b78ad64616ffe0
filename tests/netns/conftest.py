# SPDX-License-Identifier: Apache-2.0
"""Tests of the plugins by the CNI protocol: each runs with cnihook's plugins and with the reference's."""

from collections.abc import Iterator
from typing import cast

import pytest

from tests.support.host.host import Container, Host
from tests.support.plugins import cni
from tests.support.plugins.forked import Forked


@pytest.fixture(scope="session")
def implementations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, cni.Implementation]]:
    builtin = Forked(tmp_path_factory.mktemp("plugins"))
    yield {"builtin": builtin, "reference": cni.reference()}
    builtin.close()


@pytest.fixture(autouse=True, params=["builtin", "reference"])
def implementation(
    request: pytest.FixtureRequest, implementations: dict[str, cni.Implementation]
) -> cni.Implementation:
    return implementations[cast(str, request.param)]


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    yield host.container()
