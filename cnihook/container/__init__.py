# SPDX-License-Identifier: Apache-2.0
"""All networks of one container: attach them together, detach them, repair what they lost."""
