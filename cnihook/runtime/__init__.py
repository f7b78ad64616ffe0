# SPDX-License-Identifier: Apache-2.0
"""The runtime side of CNI: networks, the chain of their plugins, the record of what is attached, locks."""
