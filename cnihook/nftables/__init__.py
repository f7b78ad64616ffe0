# SPDX-License-Identifier: Apache-2.0
"""`table inet cnihook`, a module for each purpose, and rules in the tables of other programs."""
