"""Publishers over HTTP, in threads: they note what was acknowledged, and what was in flight."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Publisher", "post_batch", "run_publishers"]

# Seconds: how long an answer may take.
PATIENCE = 10.0


@dataclass
class Publisher:
    """One connection that publishes numbered events, some at a time.

    What is published has the data ``name number``; `acknowledged` is the number of those for which
    there was an answer, and `unknown` of those in the request that was not answered.
    """

    name: str
    batch: int
    acknowledged: int = 0
    unknown: int = 0
    answers: list[float] = field(default_factory=list)

    def run(self, port: int, stop: Callable[[], bool]) -> None:
        """Publish until stopped, or until the server is gone."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            while not stop():
                first = self.acknowledged + self.unknown
                self.unknown += self.batch
                began = time.perf_counter()
                post_batch(connection, [f"{self.name} {first + n}" for n in range(self.batch)])
                self.answers.append(time.perf_counter() - began)
                self.unknown -= self.batch
                self.acknowledged += self.batch
        except (OSError, http.client.HTTPException):
            pass  # it was killed: what is unknown stays unknown
        finally:
            connection.close()


def post_batch(connection: http.client.HTTPConnection, data: list[str]) -> None:
    """Publish events: one as JSON, several as a batch."""
    objects = [json.dumps({"data": each}) for each in data]
    kind = "json" if len(objects) == 1 else "x-ndjson"
    headers = {"Content-Type": f"application/{kind}"}
    connection.request("POST", "/publish?topic=durable", "\n".join(objects), headers)
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise AssertionError(f"status {answer.status}: {said!r}")


def run_publishers(publishers: list[Publisher], port: int, stop: Callable[[], bool]) -> None:
    """Run publishers at the same time, to the end of each."""
    threads = [threading.Thread(target=each.run, args=(port, stop)) for each in publishers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
