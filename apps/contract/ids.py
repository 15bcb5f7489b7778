r"""Task ids: a UUIDv7 and a keyed tag, so that any replica can verify an id without a look-up.

    0199d5a0-7c3e-7b1c-9f0e-2f6d3a1b4c5d-8c1f0a9b7d6e5f43
    \____________ UUIDv7 ______________/ \____ tag ____/

UUIDv7: RFC 9562, section 5.7 (48 bits of Unix milliseconds, then random). The tag is a 64-bit keyed BLAKE2b
(RFC 7693) over the UUID and the owner's name. A forged id, or one of another client, does not verify and is
treated like an id that does not exist.
"""

import hmac
import os
import re
import struct
import time
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

ID_CHARS = 53
_FORM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}-[0-9a-f]{16}")


@dataclass(frozen=True)
class TaskIds:
    """Creates and verifies ids with a secret that all replicas share."""

    secret: bytes

    def new(self, owner: str) -> str:
        """Create an id for a task of the client `owner`."""
        plain = uuid7()
        return f"{plain}-{self._tag(plain, owner)}"

    def member(self, first: str, index: int, owner: str) -> str:
        """The id of a batch's input at `index`, derived from `first`, the id of input 0; deterministic."""
        if index == 0:
            return first
        random = blake2b(f"{first}/{index}".encode(), key=self.secret, digest_size=10).digest()
        plain = _uuid7(int(first[:8] + first[9:13], 16), random)
        return f"{plain}-{self._tag(plain, owner)}"

    def of_uuid(self, uuid: str, owner: str) -> str:
        """The id for a UUID given as 32 hexadecimal digits."""
        plain = f"{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}"
        return f"{plain}-{self._tag(plain, owner)}"

    def owns(self, owner: str, task_id: str) -> bool:
        """Whether `task_id` was created with this secret for `owner`."""
        if not _FORM.fullmatch(task_id):
            return False
        return hmac.compare_digest(task_id[37:], self._tag(task_id[:36], owner))

    def _tag(self, plain: str, owner: str) -> str:
        keyed = self._keyed.copy()
        keyed.update(f"{plain}/{owner}".encode())
        return keyed.hexdigest()

    @cached_property
    def _keyed(self) -> blake2b:
        """A hash initialized with the key. Copying it is four times as fast as creating one each time."""
        return blake2b(key=self.secret, digest_size=8)


def created_at_s(task_id: str) -> float:
    """The creation time of an id in seconds since the epoch, to the millisecond.

    Raises ValueError if it is not an id of this form.
    """
    return int(task_id[:8] + task_id[9:13], 16) / 1000


def uuid7() -> str:
    """A UUIDv7. Python 3.14 and later have `uuid.uuid7`."""
    return _uuid7(time.time_ns() // 1_000_000, random_bytes()[:10])


def _uuid7(ms: int, random: bytes) -> str:
    digits = (ms.to_bytes(6, "big") + random).hex()
    variant = "89ab"[random[2] >> 4 & 3]
    return f"{digits[:8]}-{digits[8:12]}-7{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def random_hex() -> str:
    """128 random bits as hexadecimal digits."""
    return random_bytes().hex()


def random_bytes() -> bytes:
    """16 random bytes from a pool, which one system call fills with 256 of them: a call for each is slow."""
    try:
        return _stock.pop()
    except IndexError:
        _stock.extend(part for (part,) in struct.iter_unpack("16s", os.urandom(16 * STOCK)))
        return _stock.pop()


STOCK = 256
_stock: list[bytes] = []
os.register_at_fork(after_in_child=_stock.clear)  # otherwise parent and child would use the same bytes
