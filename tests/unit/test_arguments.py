# SPDX-License-Identifier: Apache-2.0
"""Rules that hold for the arguments of all commands."""

import pytest

from cnihook.cli import main

# A variable without a value, as in a script, does not stand for the current folder.
EMPTY = [
    "hooks.d install --dir",
    "install --prefix",
    "install --destdir",
    "install-plugins",
    "install-plugins --remove",
    "man --install",
    "man --remove",
    "new-plugin mytype --dir",
    "conformance",
    "inject",
    "list --conf-dir",
    "attach c1 --conf-dir",
]


@pytest.mark.parametrize("words", EMPTY)
def test_empty_path_is_refused(words: str, capfd: pytest.CaptureFixture[str]) -> None:
    command, *arguments = words.split()

    with pytest.raises(SystemExit) as end:
        main.load(command).main([*arguments, ""])

    assert end.value.code == 2
    assert capfd.readouterr().err.endswith(f": the path is empty; see `cnihook {command} --help`\n")
