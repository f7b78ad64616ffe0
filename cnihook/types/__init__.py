# SPDX-License-Identifier: Apache-2.0
"""
The CNI specification as types: configurations, results, errors, versions, names; and what plugins
declare.

They use no file and no kernel.
"""
