# SPDX-License-Identifier: Apache-2.0
"""oci-examples/embed: a program that embeds the runtime, as its README shows it."""

import pytest

from tests.support.cni import CHECKOUT
from tests.support.host import Host

EXAMPLE = CHECKOUT / "oci-examples" / "embed"


@pytest.mark.root
@pytest.mark.needs("busybox", "nsenter", "unshare")
def test_the_program_prints_what_its_readme_says_and_leaves_nothing(host: Host) -> None:
    done = host.run(str(EXAMPLE / "run"))

    _, said = (EXAMPLE / "README.md").read_text().split("    # ./run\n")
    assert done.stdout == "".join(f"{line.removeprefix('    ')}\n" for line in said.strip().splitlines())
    assert done.stderr == ""
