"""Many requests at a time over few connections, at a tenth of the processor time of a whole HTTP client."""

from __future__ import annotations

import asyncio
import urllib.parse


class Wire:
    """Keep-alive connections to one service; requests wait for a free one.

    Args:
        url: of the service, http only.
        token: the service's, if it asks for one.
        connections: at most.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, url: str, token: str | None = None, connections: int = 100, timeout: float = 10.0) -> None:
        place = urllib.parse.urlsplit(url)
        self._host, self._port = place.hostname or "127.0.0.1", place.port or 80
        self._head = f"HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: application/json\r\n" + (
            f"authorization: Bearer {token}\r\n" if token else ""
        )
        self._free, self._timeout = asyncio.Semaphore(connections), timeout
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, content: bytes) -> tuple[int, bytes]:
        """Status and content of the answer.

        Raises:
            OSError: if there was none: the connection was lost or refused, or the time is over.
        """
        async with self._free:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
            try:
                async with asyncio.timeout(self._timeout):
                    writer.write(f"POST {path} {self._head}content-length: {len(content)}\r\n\r\n".encode() + content)
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                    answer = int(head[9:12]), await reader.readexactly(length)
            except (EOFError, ValueError, asyncio.LimitOverrunError) as error:
                writer.close()
                raise ConnectionError(f"the connection was lost, or the answer is not Segue's ({error})") from None
            except BaseException:  # what is still to come on this connection is no other request's answer
                writer.close()
                raise
            if b"connection: close" in head:
                writer.close()
            else:
                self._idle.append((reader, writer))
            return answer

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()
