# SPDX-License-Identifier: Apache-2.0
"""The parts of the command `cnihook cluster`: one file for each of its own commands, and what they share."""
