# SPDX-License-Identifier: Apache-2.0
"""The hook and the commands, with real container runtimes."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.support.host.host import Host
from tests.support.runtimes.oci import RUNTIMES, Runtime, make_rootfs


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("oci") / "rootfs")


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, host: Host, rootfs: Path) -> Iterator[Runtime]:
    instance = Runtime(host, cast(str, request.param), rootfs)
    yield instance
    instance.close()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """End what a test leaves running before the leak check, so that every test tests poststop too."""
    result = yield
    runtime = pyfuncitem.funcargs.get("runtime")
    if isinstance(runtime, Runtime):
        runtime.delete_all()
    return result
