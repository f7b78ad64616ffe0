# SPDX-License-Identifier: Apache-2.0
"""The requests of a container to its networks, and the bounds on them."""
