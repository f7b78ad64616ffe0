# SPDX-License-Identifier: Apache-2.0
"""Every kind of change of one running container, while its connections go on."""

from pathlib import Path

import pytest

from tests.support.commands.live import ATTACH, change_all, configure_live
from tests.support.host.host import Host
from tests.support.runtimes.oci import Runtime, make_rootfs


@pytest.mark.parametrize("runtime", ["runc"], indirect=True)
def test_connections_live_through_all_changes(host: Host, runtime: Runtime, tmp_path: Path) -> None:
    outside = host.outside()
    configure_live(host)
    runtime.rootfs = make_rootfs(tmp_path / "rootfs")
    container = runtime.run("web", *ATTACH)
    change_all(host, outside, container, "web")
    runtime.delete_all()
