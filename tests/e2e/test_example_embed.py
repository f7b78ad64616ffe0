# SPDX-License-Identifier: Apache-2.0
"""oci-examples/embed: a program that embeds the CNI runtime."""

import pytest

from tests.support.host.host import Host
from tests.support.plugins.cni import CHECKOUT

EXAMPLE = CHECKOUT / "oci-examples" / "embed"


@pytest.mark.root
@pytest.mark.needs("busybox", "nsenter", "unshare")
def test_program_prints_what_its_readme_shows_and_leaves_nothing(host: Host) -> None:
    result = host.run(str(EXAMPLE / "run"))

    _, shown = (EXAMPLE / "README.md").read_text().split("    # ./run\n")
    assert result.stdout == "".join(f"{line.removeprefix('    ')}\n" for line in shown.strip().splitlines())
    assert result.stderr == ""
