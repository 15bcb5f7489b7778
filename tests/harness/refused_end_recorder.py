"""The recorder with an `end` script that Redis refuses."""

import asyncio

from apps.contract import states
from apps.worker import recorder

states.END_WHEN_FULL = "return redis.call('NO-SUCH-COMMAND')"

if __name__ == "__main__":
    asyncio.run(recorder.main())
