# SPDX-License-Identifier: Apache-2.0
"""Processes: run and replace programs, signals, standard streams, life without the caller."""
