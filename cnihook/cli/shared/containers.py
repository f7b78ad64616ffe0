# SPDX-License-Identifier: Apache-2.0
"""
The names by which users call containers.  Each command that takes a container finds it here.

    0ec02c95e0d70f6d...     the container ID
    web                     the name in docker, podman or nerdctl; of `docker-run --name`
    shop/web-7, web-7       a pod of Kubernetes, with or without its namespace
    box                     the network namespace that `cnihook add` attached: /run/netns/box
    job                     a container in the namespace of another: `docker run --network container:web`
    0ec0                    the beginning of an ID, if it is the only one
    0ec02c95e0d7…           what ps or graph shows of a longer ID or name

An ID comes before a name, and a name before the beginning of an ID.  If several containers are meant, none
is taken.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from cnihook.fast.errors_text import listed
from cnihook.oci import engines
from cnihook.runtime import identity, netns_names, records
from cnihook.runtime.records import Record
from cnihook.types.errors import UNKNOWN_CONTAINER, CniError
from cnihook.types.names import check_container_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.oci.state import State

_LISTED = 10  # containers that an error names
_SHORT = 12  # digits of an ID that engines show
_HEX = frozenset("0123456789abcdef")
_CUTS = ("…", "~")  # how a table marks what it has cut
_NAMED = ("/run/netns", "/var/run/netns")
_OF_CNITOOL = "cnitool-"
_MADE = (_OF_CNITOOL, "priv-")  # the beginnings of IDs that programs chose


def check_name(text: str) -> None:
    """Raise CniError if a text is neither an ID nor a name of a container."""
    for mark in _CUTS:
        text = text.replace(mark, "")
    for part in text.split("/", 1):
        check_container_id(part)


def short(container_id: str) -> str:
    """Return an ID as engines show it: of 64 digits, the first 12."""
    is_long = len(container_id) == 64 and _HEX.issuperset(container_id)
    return container_id[:_SHORT] if is_long else container_id


def cnitools_id(netns: str) -> str:
    """Return the container ID that cnitool makes of a namespace's absolute path."""
    import hashlib  # 3 ms; most commands do not need it

    return f"{_OF_CNITOOL}{hashlib.sha512(os.fsencode(netns)).digest()[:10].hex()}"


def pod_of(record: Record) -> str:
    """Return NAMESPACE/NAME of a pod, which CRI-O and containerd pass in CNI_ARGS; empty for none."""
    keys = ("K8S_POD_NAMESPACE", "K8S_POD_NAME")
    return "/".join(filter(None, map(record.cni_args.get, keys)))


def names_of(attachments: "Iterable[Record]") -> "dict[str, str]":
    """Return {container ID: name} for containers that have a name."""
    names = {one.network_of: one.name for one in engines.containers() if one.name}
    for record in attachments:
        name = pod_of(record)
        if not name and record.container_id.startswith(_OF_CNITOOL):
            name = _netns_name(record) if cnitools_id(record.netns) == record.container_id else ""
        if name:
            names[record.container_id] = name
    return names


def shown(attachments: "Iterable[Record]", names: "Mapping[str, str]") -> "dict[str, str]":
    """Return {container ID: its name, or the ID as engines show it}.  Every command takes these.

    A name of `names` is not shown if it is the ID of another container, nor is a short ID that two have.  If
    two have one name, as after the restart of a pod, it is shown for both, and a command asks for the ID.
    """
    ids = {record.container_id for record in attachments}
    uses = Counter(map(short, ids))
    shown = {}
    for container_id in ids:
        name = names.get(container_id, "")
        unnamed = short(container_id) if uses[short(container_id)] == 1 else container_id
        shown[container_id] = name if name and name not in ids else unnamed
    return shown


def on_record(text: str, *, is_changed: bool = False) -> str:
    """Return the ID of the container on record that a text names, or the text if there is none.

    `is_changed`: the command changes the container.  The beginning of an ID that a user chose does not count
    then: `detach web`, when web is gone, must not detach web-2.  Raises CniError if several are named.
    """
    try:
        attachments = records.of_container(text)
        if attachments or netns_names.is_marked(text):
            return text
        attachments = records.all_records(unreadable=[])
    except OSError:
        return text  # the command itself reports the error
    ids = {record.container_id for record in attachments} | set(netns_names.marked())
    return _find(text, ids, attachments, is_changed)


def all_on_record() -> str:
    """Return which containers are on record, for an error."""
    attachments = records.all_records()
    present = sorted(shown(attachments, names_of(attachments)).values())
    return f"containers on record: {listed(present, _LISTED)}" if present else "no container is on record"


def among(text: str, ids: "Collection[str]") -> str:
    """Return that of `ids` which a text names, or the text.  Raises CniError if several are named."""
    if text in ids:
        return text
    try:
        attachments = records.all_records(unreadable=[])
    except OSError:
        attachments = []  # only root may read them
    return _find(text, ids, attachments)


def running(text: str, runtime: str = "", root: str = "") -> "State":
    """Return the state of the container that a text names, from runc or crun, or from `runtime`.

    `root`: the folder of the runtime's containers; without it, those of the engines are searched.  Raises
    CniError.
    """
    from cnihook.oci import runtimes  # for one command only

    by_id = engines.places(root)
    container_id = text if text in by_id else _find(text, by_id, (), is_changed=True)
    program = os.path.basename(runtime)
    places = [
        (runtime or kind, folder)
        for kind, folder in by_id.get(container_id, ())
        if program not in runtimes.KNOWN or program == kind
    ]
    kinds = (runtime,) if runtime else runtimes.KNOWN
    return runtimes.find(container_id, places or [(kind, root) for kind in kinds])


def _find(
    text: str, ids: "Collection[str]", attachments: "Iterable[Record]", is_changed: bool = False
) -> str:
    of_engines = engines.containers()
    names = [(one.name, one.network_of) for one in of_engines]
    for record in attachments:
        names += [(name, record.container_id) for name in (pod_of(record), _netns_name(record))]
    names += [(name.partition("/")[2], one) for name, one in names]  # a pod without its namespace
    numbers = {one.id: one.network_of for one in of_engines} | {each: each for each in ids}
    mark = next((mark for mark in _CUTS if mark in text), "")
    if mark:
        before, _, after = text.partition(mark)
        meant = [
            one
            for name, one in [*names, *numbers.items()]
            if name.startswith(before) and name.endswith(after)
        ]
    else:
        meant = [one for name, one in names if name == text and one in ids] or [
            one
            for number, one in numbers.items()
            if number.startswith(text) and not (is_changed and _is_chosen(number))
        ]
    matches = sorted({one for one in meant if one in ids})
    if not (matches or mark):
        joined = {
            one.id
            for one in of_engines
            if one.name == text or (one.id.startswith(text) and not (is_changed and _is_chosen(one.id)))
        }
        matches = sorted(_attached_for(joined | {text}, attachments) & {*ids})
    if len(matches) > 1:
        all_names = names_of(attachments)
        raise CniError(
            UNKNOWN_CONTAINER,
            f"{text} names {len(matches)} containers: "
            + ", ".join(f"{all_names.get(one, '')} {one}".lstrip() for one in matches),
            "give the whole ID of one",
        )
    return matches[0] if matches else text


def _attached_for(joined: "set[str]", attachments: "Iterable[Record]") -> "set[str]":
    """Return the containers on record whose network namespace one of these containers uses."""
    namespaces = set()
    for pid, start in (process for one in joined for process in engines.processes(one)):
        if identity.process_start(pid) == start:
            namespaces.add(_netns_id(f"/proc/{pid}/ns/net"))
    return {
        record.container_id
        for record in attachments
        if (record.process.netns_id if record.process else _netns_id(record.netns)) in namespaces - {None}
    }


def _netns_id(path: str) -> "tuple[int, int] | None":
    try:
        status = os.stat(path)
    except OSError:
        return None  # it is gone
    return status.st_dev, status.st_ino


def _is_chosen(container_id: str) -> bool:
    """Return True if a user chose the ID, so that it is a name, too."""
    return short(container_id) == container_id and not container_id.startswith(_MADE)


def _netns_name(record: Record) -> str:
    folder, name = os.path.split(record.netns)
    return name if folder in _NAMED else ""
