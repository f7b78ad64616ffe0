# SPDX-License-Identifier: Apache-2.0
"""
The CNI specification as types: configurations, results, errors, versions, names.

They use no file and no kernel.
"""
