"""Many clients at once in one process: for a thousand of them an HTTP library would cost more than what it asks."""

import asyncio

from tests.harness.system import Api


class Crowd:
    """Asks for one path on as many connections at once; `answers` waits for all of them."""

    def __init__(self, api: Api, path: str, clients: int) -> None:
        self._clients = [asyncio.create_task(_get(api, path)) for _ in range(clients)]

    async def answers(self) -> list[str]:
        """The bodies, in which chunked ones still have their sizes."""
        raw = await asyncio.gather(*self._clients)
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
