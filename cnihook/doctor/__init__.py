# SPDX-License-Identifier: Apache-2.0
"""Checks for faults on a host: each module finds faults of one kind and suggests a command for each.

cli/doctor.py runs them in order.
"""
