"""Many clients at once in one process, on plain sockets: a thousand HTTP library clients would need too much CPU."""

import asyncio

from tests.harness.system import Api, System, until


async def wait_together(system: System, api: Api, path: str, clients: int) -> list[str]:
    """Send GET requests for one path on `clients` connections, and start a worker once all of them wait.

    Returns the bodies; chunked bodies still contain their chunk sizes.
    """
    asking = [asyncio.create_task(_get(api, path)) for _ in range(clients)]
    await asyncio.to_thread(until, lambda: api.metric("sluice_long_polls") == clients)
    assert system.redis_connections(api) == 2  # one for pub/sub, one for all commands
    await asyncio.to_thread(system.worker)
    raw = await asyncio.gather(*asking)
    heads, bodies = zip(*(one.decode().split("\r\n\r\n", 1) for one in raw), strict=True)
    assert {head.split()[1] for head in heads} == {"200"}
    return list(bodies)


async def _get(api: Api, path: str) -> bytes:
    address = api.client.base_url
    reader, writer = await asyncio.open_connection(address.host, address.port)
    authorization = api.client.headers["Authorization"]
    lines = [f"GET {path} HTTP/1.1", f"Host: {address.host}", f"Authorization: {authorization}", "Connection: close"]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        return await reader.read()
    finally:
        writer.close()
