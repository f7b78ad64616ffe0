# SPDX-License-Identifier: Apache-2.0
"""The filters of `network ls` and `network prune`, as docker and podman have them.

Values of one key are alternatives, except those of `label`, of which all must match.
"""

import calendar
import time

from cnihook.cli.networks.view import View
from cnihook.cli.shared import spans
from cnihook.types.errors import invalid_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TRUTH = {"true": True, "1": True, "false": False, "0": False}


class Filters:
    """The values of --filter, checked.  `keys`: those that the command has."""

    def __init__(self, texts: "list[str]", keys: "Sequence[str]") -> None:
        self._values: dict[str, list[str]] = {}
        for text in texts:
            key, equals, value = text.partition("=")
            if not equals or key not in keys:
                raise invalid_config(f"--filter {text}: it is not KEY=VALUE with a KEY of {', '.join(keys)}")
            if key == "dangling" and value.lower() not in _TRUTH:
                raise invalid_config(f"--filter {text}: write true or false")
            self._values.setdefault(key, []).append(value)
        self._before = [_time(text) for text in self._values.get("until", ())]

    def match(self, view: View) -> bool:
        """Return True for a network that has all that the filters request."""
        return all(
            _MATCHES[key](view, values) for key, values in self._values.items() if key in _MATCHES
        ) and (
            not self._before
            or bool(view.created)
            and all(_stamp(view.created) < each for each in self._before)
        )


def _has_label(view: View, text: str) -> bool:
    key, equals, value = text.partition("=")
    return key in view.labels and (not equals or view.labels[key] == value)


_MATCHES: "dict[str, Callable[[View, list[str]], bool]]" = {
    "name": lambda view, values: any(value in view.name for value in values),
    "id": lambda view, values: any(view.id.startswith(value) for value in values),
    "driver": lambda view, values: view.driver in values,
    "label": lambda view, values: all(_has_label(view, value) for value in values),
    "label!": lambda view, values: not any(_has_label(view, value) for value in values),
    "dangling": lambda view, values: (not view.rows) in [_TRUTH[value.lower()] for value in values],
}


def _stamp(text: str) -> float:
    """Return the seconds since 1970 of a time in UTC, as `network create` writes it."""
    try:
        return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        raise invalid_config(
            f"{text!r} is not a time", "examples are 2026-01-31T12:00:00Z, 24h, 1h30m"
        ) from None


def _time(text: str) -> float:
    """Return the seconds since 1970 of a time, or of an age such as 1h30m."""
    age = spans.seconds(text)
    return _stamp(text) if age is None else time.time() - age
