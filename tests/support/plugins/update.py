# SPDX-License-Identifier: Apache-2.0
"""The change of one plugin's input while the container runs, as the runtime makes it."""

import json
from typing import Any

from tests.support.host.host import Container, Host
from tests.support.plugins.cni import CHECKOUT, CniFailure, with_previous_result

UPDATE = f"""\
import json, sys
sys.path.insert(0, {str(CHECKOUT)!r})
from cnihook.protocol import invoke
from cnihook.protocol.call import Call, Invocation
from cnihook.types.config import NetConf
from cnihook.types.errors import CniError, as_cni_error
inputs = json.load(sys.stdin)
request = Invocation(*inputs["attachment"])
call, before = (Call("UPDATE", NetConf(each), request) for each in inputs["confs"])
try:
    result = invoke.load(inputs["confs"][0]["type"]).update(call, before)
except (CniError, OSError) as error:
    print(as_cni_error(error).to_json(call.version))
    sys.exit(1)
print(json.dumps(result.to_json(call.version) if result else inputs["confs"][1]["prevResult"]))
"""


def update(host: Host, container: Container, conf: Any, before: Any, ifname: str = "eth0") -> Any:
    """Change what `before` has set up to what `conf` requests.

    Returns the configuration for DEL and CHECK, with the result, and has the host's DEL at the end use it.
    """
    sent = {**conf, "prevResult": before["prevResult"]}
    inputs = {"attachment": [container.name, container.path, ifname], "confs": [sent, before]}
    program = host.run("/usr/bin/python3", "-IS", "-c", UPDATE, input=json.dumps(inputs), check=False)
    assert program.stdout, program.stderr
    result = json.loads(program.stdout)
    if program.returncode:
        raise CniFailure(result)
    for attachment in host.attachments:
        if attachment.container is container and attachment.conf["type"] == conf["type"]:
            attachment.conf, attachment.result = sent, result
    return with_previous_result(sent, result)
