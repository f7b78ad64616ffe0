# SPDX-License-Identifier: Apache-2.0
"""What `cnihook new-plugin` makes a project of: the files in here, with the new name for myplugin."""
