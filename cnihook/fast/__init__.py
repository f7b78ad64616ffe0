# SPDX-License-Identifier: Apache-2.0
"""Fast replacements for slow modules of the standard library, for code that runs at each container start."""
