# SPDX-License-Identifier: Apache-2.0
"""The commands of `cnihook policy`, one file each."""
