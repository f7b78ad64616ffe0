# SPDX-License-Identifier: Apache-2.0
"""The work of ip, bridge, nft and nsenter, done in this process.  It does not depend on CNI."""
