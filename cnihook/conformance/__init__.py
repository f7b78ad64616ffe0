# SPDX-License-Identifier: Apache-2.0
"""
Black-box checks of the CNI protocol, against any plugin and any runtime.

A check is a function in one of the `*_checks` modules; it gets a Case (case.py), an empty throw-away host
with the plugin that is looked at, speaks the protocol to it, and looks at what comes back and at what became
of the namespaces.  run.py runs them, each in a host of its own, report.py tells what came out.
"""
