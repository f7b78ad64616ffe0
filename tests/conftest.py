# SPDX-License-Identifier: Apache-2.0
"""Fixtures and markers of all tests.  What they are made of is in tests/support/."""

from collections.abc import Generator, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.support.cni import reference_version
from tests.support.difference import Difference
from tests.support.host import Host
from tests.support.limit import SECONDS, SECONDS_OF_GUEST, kill_children_of_failure, limit
from tests.support.skip import need, need_root
from tests.support.wait import short_patience

GUEST = Path(__file__).with_name("vm") / "guest"


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A throw-away host; after the test it must be as it was before."""
    implementation = (
        request.getfixturevalue("implementation") if "implementation" in request.fixturenames else None
    )
    with Host(implementation) as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """The leak check is part of the test: one that is known to fail may be known to leak."""
    with short_patience() if pyfuncitem.get_closest_marker("xfail") else nullcontext():
        with kill_children_of_failure():
            result = yield
        made = pyfuncitem.funcargs.get("host")
        if isinstance(made, Host):
            made.delete_attachments()
            made.check_leaks()
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
    """Of what is known to fail the words are enough: to find where it did so takes the source apart."""
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
    """What the reference is known to do otherwise must fail: once it no longer does, the mark has to go."""
    for item in items:
        call = getattr(item, "callspec", None)
        if call is None or call.params.get("implementation") != "reference":
            continue
        for marker in item.iter_markers("known_difference"):
            difference = Difference(*marker.args, **marker.kwargs)
            if difference.concerns(reference_version()):
                # In a guest, to see once more that it differs would cost a quarter of the time.
                run = difference.run and not item.path.is_relative_to(GUEST)
                item.add_marker(pytest.mark.xfail(reason=difference.reason, run=run, strict=True))
