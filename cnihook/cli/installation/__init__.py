# SPDX-License-Identifier: Apache-2.0
"""Files that `cnihook install` writes and `cnihook uninstall` removes, and the record of them."""
