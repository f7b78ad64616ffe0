# SPDX-License-Identifier: Apache-2.0
"""The networks of a folder, by name."""

from collections.abc import Iterator, Mapping

from cnihook.runtime import networks
from cnihook.runtime.networks import Network, NetworkNotFoundError


class Networks(Mapping[str, Network]):
    """The networks of a folder by name, in the order of their files, as they are when this is made.

    `problems` has an error for each file that is not used.  A folder without any configuration has the
    built-in network.  A name that is missing raises NetworkNotFoundError, which is a KeyError, too.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        configured, self.problems = networks.load_folder(folder)
        if not configured and not self.problems:
            configured = [networks.built_in()]
        self._by_name = {network.name: network for network in configured}

    def __repr__(self) -> str:
        problems = f", {len(self.problems)} problems" if self.problems else ""
        return f"<Networks of {self._folder}: {', '.join(self) or 'none'}{problems}>"

    def __getitem__(self, name: str) -> Network:
        network = self._by_name.get(name)
        if network is None:
            raise NetworkNotFoundError(name, self._folder, list(self), self.problems)
        return network

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)
