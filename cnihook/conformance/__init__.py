# SPDX-License-Identifier: Apache-2.0
"""
Black-box checks of the CNI protocol, against any plugin and any runtime.

A check is a function in one of the `*_checks` modules.  It gets a Case (case.py): an empty throw-away host
and the plugin under test.  It calls the plugin by the protocol, and examines the output and the state of the
namespaces afterwards.  run.py runs each check in a host of its own; report.py prints the outcomes.
"""
