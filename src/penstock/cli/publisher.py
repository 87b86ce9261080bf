"""Publishing over HTTP: what is sent, and what the answer says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, final

import httpx2
import trio

from penstock.client.connection import CLOSE_TIMEOUT, reason_of, status_of
from penstock.client.event_source import own_client
from penstock.client.request import address_of
from penstock.errors import ConnectionFailed, InvalidEvent
from penstock.event import ServerSentEvent
from penstock.printable import printable

__all__ = ["NotPublished", "Publisher"]

# Seconds for a request and its answer. A hub on a slow disk takes one or two.
_ANSWER_TIMEOUT: Final = 60.0

# Bytes; the ids of a batch are 50 each.
_MAX_ANSWER: Final = 2**20

# Seconds that an idle connection is used again. Servers close theirs after 5 (Hypercorn, uvicorn)
# or more, and a request sent just then is lost.
_IDLE: Final = 2.0


class NotPublished(Exception):
    """Something was not published; the message says why.

    Attributes:
      line: which line of a batch is to blame, from 1, if the server said so.
      known: whether it is certain that nothing of it was published.
    """

    def __init__(self, reason: str, *, line: int | None = None, known: bool = True) -> None:
        super().__init__(reason)
        self.line: int | None = line
        self.known: bool = known


@final
class Publisher:
    """Publishes at one URL; open in its block.

    Raises:
      NotPublished: the environment names a proxy or certificates that cannot be used.
    """

    def __init__(self, url: httpx2.URL, headers: Sequence[tuple[str, str]]) -> None:
        self._url = url
        self._headers = httpx2.Headers(
            {"Accept-Encoding": "identity", "Accept": "application/json"}
        )
        self._headers.update(headers)
        limits = httpx2.Limits(keepalive_expiry=_IDLE)
        try:
            self._client = own_client(timeout=None, limits=limits)
        except ConnectionFailed as error:
            raise NotPublished(str(error)) from error

    async def __aenter__(self) -> Publisher:
        return self

    async def __aexit__(self, *error: object) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await self._client.aclose()

    async def publish(self, publication: bytes) -> str:
        """Publish one, a JSON object; return the id it got.

        Raises:
          NotPublished: it was not, or nobody knows.
        """
        (published,) = await self._post("application/json", publication, "id", 1)
        return published

    async def publish_batch(self, publications: Sequence[bytes]) -> list[str]:
        """Publish many, each a JSON object, or none of them; return their ids.

        Raises:
          NotPublished: none was, or nobody knows.
        """
        body = b"".join(each + b"\n" for each in publications)
        return await self._post("application/x-ndjson", body, "ids", len(publications))

    async def _post(self, kind: str, body: bytes, key: str, count: int) -> list[str]:
        headers = httpx2.Headers(self._headers)
        headers["Content-Type"] = kind
        with trio.move_on_after(_ANSWER_TIMEOUT):
            try:
                response, answer = await self._answer(body, headers)
            except (httpx2.ConnectError, httpx2.LocalProtocolError) as error:
                raise NotPublished(f"{address_of(self._url)}: {reason_of(error)}") from error
            except (httpx2.TransportError, httpx2.InvalidURL, UnicodeError) as error:
                # The last two are of a redirect's target, at which httpx2 looks in vain.
                said = f"{address_of(self._url)}: {reason_of(error)}"
                raise NotPublished(said, known=False) from error
            return self._ids(response, answer, key, count)
        raise NotPublished(
            f"{address_of(self._url)}: no answer within {_ANSWER_TIMEOUT:g} s", known=False
        )

    async def _answer(self, body: bytes, headers: httpx2.Headers) -> tuple[httpx2.Response, bytes]:
        request = self._client.build_request("POST", self._url, content=body, headers=headers)
        response = await self._client.send(request, stream=True)
        answer = b""
        try:
            # Read to its end, so that the connection can be used again; kept, to a bound.
            async for chunk in response.aiter_raw():
                answer += chunk[: _MAX_ANSWER - len(answer)]
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await response.aclose()
        return response, answer

    def _ids(self, response: httpx2.Response, answer: bytes, key: str, count: int) -> list[str]:
        """Return the ids of an answer; or raise what it says is wrong."""
        try:
            said: Any = json.loads(answer)
        except (ValueError, RecursionError):
            said = None
        said = said if isinstance(said, dict) else {}
        status = status_of(response)
        if not response.is_success:
            line, reason = said.get("line"), said.get("error")
            line = line if type(line) is int and 1 <= line <= count else None
            if not isinstance(reason, str) or not reason.strip():
                reason = f"{address_of(self._url)}: answered {status}"
            # A server in trouble may have published, and failed to say so.
            known = response.status_code < 500 or "error" in said
            raise NotPublished(_one_line(reason, line), line=line, known=known)
        given: Any = said.get(key)
        ids: list[str] = given if isinstance(given, list) else [given]
        if len(ids) != count or not all(map(_is_id, ids)):
            where = address_of(self._url)
            raise NotPublished(
                f"{where}: answered {status}, without {count} id{'' if count == 1 else 's'}: "
                "is this where one publishes?",
                known=False,
            )
        return ids


def _is_id(given: Any) -> bool:
    try:
        ServerSentEvent(id=given)
    except InvalidEvent:
        return False
    return True


def _one_line(reason: str, line: int | None) -> str:
    """Return what a server said, fit for a line of a terminal; the input's line is named anyway."""
    words = " ".join(reason.split())
    return printable(words.removeprefix(f"line {line}: "), limit=500)
