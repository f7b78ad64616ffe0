# SPDX-License-Identifier: Apache-2.0
"""The names that containers have for each other: their /etc/hosts, resolv.conf and hostname."""
