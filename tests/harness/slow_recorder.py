"""The recorder with a broker that does not confirm a parked message in time."""

import asyncio

from aiormq.abc import AbstractChannel

from apps.contract.message import Raw
from apps.worker import recorder


async def _never_confirmed(channel: AbstractChannel, copy: Raw) -> None:  # noqa: ARG001 - the original's signature
    raise TimeoutError


recorder._publish_parked = _never_confirmed  # noqa: SLF001 - there is no public way to make the broker slow

if __name__ == "__main__":
    asyncio.run(recorder.main())
