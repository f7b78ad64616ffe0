# SPDX-License-Identifier: Apache-2.0
"""cnihook token: what a container wants, for cni-runc under a docker that has no --annotation."""

from cnihook.cli import arguments
from cnihook.cli.arguments import Parser
from cnihook.oci import token, wants

DESCRIPTION = """\
Print a variable for the environment of a container that docker starts with the runtime cni-runc.  It stands
for the options here, which become annotations; from docker 24 on, --annotation says the same.

  docker run --runtime cni --network none --env "$(cnihook token --network mynet)" IMAGE
"""

EPILOG = f"""\
It is good on this machine, for any container and for ever: it is sealed with the key in {token.KEY},
which is made with the first one.  The container does not see it.
"""


def parser() -> Parser:
    made = Parser("token", DESCRIPTION, EPILOG)
    made.add_wants()
    return made


def main(argv: list[str]) -> int:
    made = parser()
    found = made.parse_args(argv)
    if not found.said:
        made.error("nothing is wanted: --network NAME is the least")

    def work() -> None:
        print(f"{token.VARIABLE}={token.seal(wants.to_annotations(found.said))}")

    return arguments.work("token", work)
