# SPDX-License-Identifier: Apache-2.0
"""What ip, bridge, nft and nsenter do, in this process.  Knows nothing of CNI."""
