# SPDX-License-Identifier: Apache-2.0
"""The requests in a container's annotations, accepted only within bounds and from a trusted author."""

import os

from cnihook.oci import podman
from cnihook.request import options, values
from cnihook.request.bounds import FILE, Bounds, Guard
from cnihook.request.request import ContainerRequest
from cnihook.types.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def of(annotations: "Mapping[str, str]", runtime: int, own: "Bounds | None" = None) -> ContainerRequest:
    """Return what a container's annotations request.

    `runtime` is the process of its runtime.  `own`: the bounds that the hook's arguments set.  Raises
    CniError if an annotation is malformed or not allowed, or if an image may have written it.
    """
    if not options.has_requests(annotations):
        return ContainerRequest()
    return _bounded(annotations, check_author(annotations, runtime, own))


def of_pod(annotations: "Mapping[str, str]") -> ContainerRequest:
    """Return what the annotations of a Kubernetes pod request; no image can have written them.

    Raises CniError if an annotation is malformed or not allowed on this host.
    """
    return _bounded(annotations, list(filter(None, [_of_host()])))


def _bounded(annotations: "Mapping[str, str]", bounds: "list[Bounds]") -> ContainerRequest:
    request = options.from_annotations(annotations)
    source = options.NETWORKS if options.NETWORKS in annotations else values.NPWG
    request.guard = Guard(request, source, bounds)
    request.guard.check_options()
    return request


def check_author(
    annotations: "Mapping[str, str]", runtime: int, own: "Bounds | None" = None
) -> "list[Bounds]":
    """Return all bounds.

    Raises CniError if the author of an image may have written these annotations and is not trusted.
    """
    bounds = [each for each in (_of_host(), own) if each]
    if not any(each.trust_images for each in bounds) and (why := podman.copies_annotations(runtime)):
        name = next(name for name in annotations if options.has_requests([name]))
        raise CniError(
            INVALID_CONFIG,
            f"annotation {name}: {why}",
            "use podman 4.6 or newer; or cni-runc with --sysctl net.cnihook.NAME=VALUE, which an image "
            'cannot set; or trust all images: `cnihook hooks.d install --trust-images`, or "annotations": '
            f'{{"trustImages": true}} in {FILE}',
        )
    return bounds


def _of_host() -> "Bounds | None":
    """Return the bounds in the file of this host; None if it does not exist (one system call)."""
    try:
        os.lstat(FILE)
    except FileNotFoundError:
        return None
    except OSError:
        pass  # load() reports it
    from cnihook.request import bounds_file  # few hosts need it

    return bounds_file.load()
