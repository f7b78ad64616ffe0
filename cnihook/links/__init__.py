# SPDX-License-Identifier: Apache-2.0
"""Links that plugins make: pairs, children of a link of the host, devices that move."""
