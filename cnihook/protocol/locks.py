# SPDX-License-Identifier: Apache-2.0
"""
The locks between processes of cnihook, by what they protect, in the order in which a process takes them:

    docker-pause-image   made once, whichever docker-run is first
    keeper-SOCKET        made once, whichever keeper is first
    networks             one creation, edit or removal of networks' files at a time
    temporary-INODE      ends temporary changes, on the host with this namespace
    container-ID         one operation at a time on a container
    sticky-NAME          one container at a time claims a sticky name
    ending-INODE         deletes the links of containers that have ended, on the host with this namespace
    network-NAME         shared by ADD, DEL and CHECK; exclusive for GC
    policy               which policies are in force, and for which containers
    names                the names of containers in their /etc/hosts
    netns-INODE          tables and rules of a sandbox that several interfaces share
    bridge-NAME          a bridge: it is unused until its port exists
    nft                  the tables of nftables: what was read must be true when the transaction is made

No process waits for a lock while it holds one that is below it or equal to it, so no two processes wait for
each other.  The exception is a container's lock during the search for containers that are gone: the wait
lasts at most PATIENCE, and the caller continues without the lock.
"""

from cnihook.linux.flock import Lock

ORDER = (
    "docker",
    "keeper",
    "networks",
    "temporary",
    "container",
    "sticky",
    "ending",
    "network",
    "policy",
    "names",
    "netns",
    "bridge",
    "nft",
)
PATIENCE = 10.0  # seconds for other processes that release what containers that are gone have
_WAIT = 30.0  # seconds


def pause_image(timeout: float) -> Lock:
    return Lock("docker-pause-image", timeout=timeout, purpose="docker-run")


def keeper(path: str) -> Lock:
    return Lock(f"keeper{path.replace('/', '-')}", purpose="start of a keeper")


def networks(purpose: str) -> Lock:
    return Lock("networks", timeout=_WAIT, purpose=purpose)


def temporary(host: int, timeout: float) -> Lock:
    return Lock(f"temporary-{host}", timeout=timeout, purpose="end of temporary changes")


def container(container_id: str, purpose: str, timeout: float = _WAIT) -> Lock:
    return Lock(container_name(container_id), timeout=timeout, purpose=f"{purpose} {container_id}")


def container_name(container_id: str) -> str:
    return f"container-{container_id}"


def sticky(name: str, purpose: str) -> Lock:
    return Lock(f"sticky-{name}", timeout=_WAIT, purpose=f"{purpose} {name}")


def ending(host: int, timeout: float) -> Lock:
    return Lock(f"ending-{host}", timeout=timeout, purpose="end of containers")


def network(name: str, purpose: str, *, shared: bool = False, timeout: float = _WAIT) -> Lock:
    return Lock(f"network-{name}", timeout=timeout, purpose=purpose, shared=shared)


def policy(purpose: str) -> Lock:
    return Lock("policy", timeout=_WAIT, purpose=purpose)


def names(purpose: str) -> Lock:
    return Lock("names", timeout=5, purpose=purpose)


def sandbox(inode: int, purpose: str) -> Lock:
    return Lock(f"netns-{inode}", purpose=purpose)


def bridge(name: str, purpose: str) -> Lock:
    return Lock(f"bridge-{name}", purpose=purpose)


def nft(purpose: str) -> Lock:
    return Lock("nft", purpose=purpose)
