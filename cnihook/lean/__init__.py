# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for costly modules of the standard library, on the path that every container start pays for."""
