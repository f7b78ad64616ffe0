# SPDX-License-Identifier: Apache-2.0
"""The built-in plugins, one file per type: the file's name is the type, with `-` written as `_`."""
