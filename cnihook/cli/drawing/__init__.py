# SPDX-License-Identifier: Apache-2.0
"""The picture of `cnihook graph`: its model, and the forms in which it is drawn."""
