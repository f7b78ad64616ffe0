# SPDX-License-Identifier: Apache-2.0
"""Fixtures and markers of all tests.  Their parts are in tests/support/."""

import gc
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.support.difference import Difference
from tests.support.host.host import Host
from tests.support.plugins.cni import reference_version
from tests.support.skip import need, need_root
from tests.support.time_limit import SECONDS, SECONDS_OF_GUEST, kill_children_of_failure, limit
from tests.support.wait import short_patience

GUEST = Path(__file__).with_name("vm") / "guest"


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave the tests themselves out of the garbage collector, which takes 0.2 s for them.

    A forked child that collected would copy their memory.
    """
    gc.freeze()


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Yield a throw-away host, which the test must leave as it was before."""
    implementation = (
        request.getfixturevalue("implementation") if "implementation" in request.fixturenames else None
    )
    with Host(implementation) as throw_away:
        yield throw_away


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run the leak check as part of the test, because a test that is known to fail may be known to leak."""
    with short_patience() if pyfuncitem.get_closest_marker("xfail") else nullcontext():
        with kill_children_of_failure():
            result = yield
        host = pyfuncitem.funcargs.get("host")
        if isinstance(host, Host):
            host.delete_attachments()
            host.check_leaks()
        return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    with limit(_limit_of(item)):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    with limit(_limit_of(item)):
        return (yield)


def _limit_of(item: pytest.Item) -> float:
    return SECONDS_OF_GUEST if item.path.is_relative_to(GUEST.parent) else SECONDS


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report only the message of a test that is known to fail: a traceback would parse the source."""
    style = item.config.option.tbstyle
    if item.get_closest_marker("xfail"):
        item.config.option.tbstyle = "value"
    try:
        return (yield)
    finally:
        item.config.option.tbstyle = style


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    for marker in item.iter_markers("needs"):
        need(*marker.args)
    if item.get_closest_marker("root"):
        need_root()
    with limit(_limit_of(item)):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first, and mark the reference's known differences as strict xfails.

    If a test with such a mark passes, remove the mark.
    """
    # xdist still starts its groups before them, the largest first.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items:
        call = getattr(item, "callspec", None)
        if call is None or call.params.get("implementation") != "reference":
            continue
        for marker in item.iter_markers("known_difference"):
            difference = Difference(*marker.args, **marker.kwargs)
            if difference.concerns(reference_version()):
                # Not run in a guest, where the known differences would take a quarter of the time.
                run = difference.run and not item.path.is_relative_to(GUEST)
                item.add_marker(pytest.mark.xfail(reason=difference.reason, run=run, strict=True))
