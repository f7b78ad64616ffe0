# SPDX-License-Identifier: Apache-2.0
"""What OCI runtimes tell a hook, read with care."""
