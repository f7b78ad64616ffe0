# SPDX-License-Identifier: Apache-2.0
"""What is wrong on a host: each file looks for faults of one kind, and knows what mends them."""
