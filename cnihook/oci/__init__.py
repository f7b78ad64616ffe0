# SPDX-License-Identifier: Apache-2.0
"""The input of an OCI hook: state, config.json and annotations; and the names that a container gets."""
