# SPDX-License-Identifier: Apache-2.0
"""Policies: which connections a container may have, and the rules of the kernel for that."""
