# SPDX-License-Identifier: Apache-2.0
"""Access of the commands of `cnihook cluster` to etcd: by options, or as this host has joined."""

import argparse
from contextlib import contextmanager

from cnihook.cli.shared import arguments
from cnihook.cli.shared.arguments import Parser
from cnihook.cluster import state
from cnihook.cluster.etcd import EtcdStore
from cnihook.cluster.etcd_http import Access
from cnihook.cluster.state import Membership, State, StateError
from cnihook.cluster.store import StoreError, StoreUnavailableError
from cnihook.types import names
from cnihook.types.errors import INVALID_CONFIG, IO_FAILURE, TRY_AGAIN_LATER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def add_network(parser: Parser, *, optional: bool = False) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        type=arguments.checked(names.check_network_name),
        nargs="?" if optional else None,
        help="name of the network" + (" (default: all that this host has joined)" if optional else ""),
    )


def add_etcd(parser: Parser) -> None:
    group = parser.add_argument_group("etcd")
    group.add_argument(
        "--etcd", metavar="URL,...", default="", help="its servers: https://192.0.2.1:2379,..."
    )
    for option, help in (
        ("--ca", "certificate of the authority that signed those of etcd (default: the system's)"),
        ("--cert", "this host's certificate; without a common name, if etcd has users"),
        ("--key", "the key of this host's certificate"),
        ("--user-file", "file with one line, USER:PASSWORD"),
    ):
        group.add_argument(option, metavar="FILE", type=arguments.path, help=help)


def of_options(options: argparse.Namespace) -> "Access | None":
    """Return what the options say; None without --etcd."""
    urls = tuple(filter(None, options.etcd.split(",")))
    if not urls:
        return None
    try:
        files = (options.ca, options.cert, options.key, options.user_file)
        return Access(urls, *(path or "" for path in files))
    except StoreError as error:
        raise CniError(INVALID_CONFIG, str(error)) from None


def membership(network: str) -> Membership:
    """Return how this host joined the network.  Raises CniError if it did not."""
    try:
        return State(network).membership()
    except StateError as error:
        present = ", ".join(state.networks()) or "none"
        raise CniError(IO_FAILURE, str(error), f"networks that it has joined: {present}") from None


@contextmanager
def errors_of_store() -> "Iterator[None]":
    """Raise errors of etcd and of this host's files as CniError."""
    try:
        yield
    except StoreUnavailableError as error:
        raise CniError(
            TRY_AGAIN_LATER, f"etcd: {error}", "`etcdctl endpoint health` asks its servers"
        ) from None
    except (StoreError, StateError) as error:
        raise CniError(IO_FAILURE, str(error)) from None


def store_of(access: Access) -> EtcdStore:
    return EtcdStore(access)
