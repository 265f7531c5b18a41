"""The launch digest: a hash of everything the host put into the guest before it ran.

The digest is not the measurement: it holds no key and no nonce, and anyone who has the images can compute it.
"""

from __future__ import annotations

import hashlib

DIGEST_SIZE = 32


class LaunchDigest:
    """SHA-256 over the measured regions, in the order in which they are added (GCTX.LD).

    Source: SEV API, LAUNCH_UPDATE_DATA and LAUNCH_UPDATE_VMSA. Guest addresses are not part of it.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, region: bytes | bytearray | memoryview) -> None:
        """Adds the plaintext of one more region, of any length."""
        self._hash.update(region)

    def digest(self) -> bytes:
        """The 32 bytes over all regions so far; more may be added afterwards."""
        return self._hash.digest()


def launch_digest(*regions: bytes | bytearray | memoryview) -> bytes:
    """The launch digest (32 bytes) of `regions`: firmware, then padded hash table, then VMSAs, if any."""
    digest = LaunchDigest()
    for region in regions:
        digest.update(region)
    return digest.digest()
