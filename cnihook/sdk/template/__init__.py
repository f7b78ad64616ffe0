# SPDX-License-Identifier: Apache-2.0
"""The files that `cnihook new-plugin` copies into a new project, with the new name for myplugin."""
