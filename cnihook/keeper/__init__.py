# SPDX-License-Identifier: Apache-2.0
"""
A keeper: a process that does for containers what outlives the program that requests it.

    client      requests to a keeper, and its start at the first of them
    server      its socket, and its way into the background

One keeper of a kind serves the host.  A caller connects to its socket, sends one request, a line of JSON,
and gets one answer.  The keeper ends when it has nothing to do.  The next caller starts another one.
"""
