"""The recorder, with a broker that confirms no parked message in time."""

import asyncio

from aiormq.abc import AbstractChannel

from apps.contract.message import Raw
from apps.worker import recorder


async def _never_confirmed(channel: AbstractChannel, copy: Raw) -> None:  # noqa: ARG001 - as the original
    raise TimeoutError


recorder._publish_parked = _never_confirmed  # noqa: SLF001 - a slow broker has no interface

if __name__ == "__main__":
    asyncio.run(recorder.main())
