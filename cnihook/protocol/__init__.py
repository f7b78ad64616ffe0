# SPDX-License-Identifier: Apache-2.0
"""CNI's execution protocol: a call, and both of its ends, the caller and the plugin."""
