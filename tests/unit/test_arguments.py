# SPDX-License-Identifier: Apache-2.0
"""What all commands have in common in the words that they take."""

import pytest

from cnihook.cli import main

# A variable without a value, as in a script, is no word for the folder that one happens to be in.
EMPTY = [
    "hooks.d install --dir",
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
