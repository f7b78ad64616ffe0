# SPDX-License-Identifier: Apache-2.0
"""The command `priv-net-run`."""
