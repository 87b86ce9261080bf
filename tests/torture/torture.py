"""Torture: thousands of clients with ugly fates, beside a few that behave and must miss nothing.

    python torture.py [--seconds 60] [--clients 2000] [--good 50] [--seed 1] [--fates NAME,...]

The server has one processor, all clients another, so that their work does not make it late. What
"late" is compared with: the same number of clients at the same pace with the same requests, who all
behave; what is over is the harm. The rounds, each of which ends with all visitors gone:

1. alone: the good clients, who stay to the end, and nobody else;
2. warm-up: the bad ones, so that every pool and cache has its size; memory counts from here;
3. polite: as many clients, who behave;
4. bad: what this is about.

With --no-figures it is the last round only. Deadlines are multiplied by the environment's
TORTURE_SLACK, if there is one.

Exit status 1: a promise was broken, and the last lines say which; 2: this machine cannot do it.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio
import trustme
from torture_bad import ALL_FATES, PACE, POLITE
from torture_child import SEND_TIMEOUT, SLACK, USER_TIMEOUT, Child, Died, child
from torture_server import KEEP_ALIVE
from torture_verdict import Verdict, gauges

# Seconds of grace for everything that has a deadline, on a server that has much to do.
GRACE: Final = 4.0 * SLACK

# Lateness that is not worth comparing, in seconds: one burst of thirty requests costs as much.
FLOOR: Final = 0.025

# The share of a round in which other programs may have the server's processor: beyond it, lateness
# says nothing about the server.
OTHERS: Final = 0.05

# Bytes by which the memory may have grown: the allocator's crumbs, not a connection's worth each.
MEMORY: Final = 5 * 2**20


@dataclass
class Torture:
    """What is under way."""

    options: argparse.Namespace
    server: Child
    good: Child
    bad: Child
    bounds: dict[str, Any]
    verdict: Verdict
    before: dict[str, int] = field(default_factory=dict)
    late: dict[str, dict[str, Any]] = field(default_factory=dict)
    waited: float = 0.0
    """The largest share of a round in which others had the server's processor."""

    async def everything(self) -> None:
        """Go through all rounds."""
        seconds = self.options.seconds
        with trio.fail_after(30 * SLACK):
            while (await self.good.ask("report"))["listening"] < self.options.good:  # noqa: ASYNC110
                await trio.sleep(0.1)
        self.before = gauges(await self.server.ask("statistics"))
        if self.options.no_figures:
            await self.round("bad", self.options.fates, seconds, seed=self.options.seed)
            await self.stop()
            return
        ramp = self.options.clients / PACE
        await trio.sleep(max(seconds / 6, 2))
        await self.listen("alone")
        await self.round("warm-up", self.options.fates, max(seconds / 3, 3) + ramp, seed=0)
        warm = await self.server.ask("memory")
        await self.good.ask("report")
        await self.round("polite", list(POLITE), max(seconds / 3, 4) + ramp, seed=0)
        await self.good.ask("report")
        await self.round("bad", self.options.fates, seconds, seed=self.options.seed)
        grown = (await self.server.ask("memory"))["rss"] - warm["rss"]
        self.verdict.note(
            grown <= MEMORY,
            f"memory within {MEMORY / 2**20:g} MB of that after the warm-up",
            f"{warm['rss'] / 2**20:.1f} MB then, {grown / 2**20:+.1f} MB",
        )
        self.compare()
        await self.stop()

    async def round(self, name: str, fates: list[str], seconds: float, *, seed: int) -> None:
        """Have a crowd come and go, and see that nothing is left of it."""
        limit = (self.bounds["send_timeout"] or SEND_TIMEOUT) + GRACE
        begun, then = trio.current_time(), await self.server.ask("statistics")
        told = await self.bad.ask(
            "run",
            fates=fates,
            clients=self.options.clients,
            seconds=seconds,
            seed=seed,
            limit=limit,
            within=2 * seconds + 120 * SLACK,
        )
        await self.listen(name)
        now, took = await self.server.ask("statistics"), trio.current_time() - begun
        busy, waited = ((now[key] - then[key]) / took for key in ("worked", "waited"))
        print(
            f"{name}: the server was busy for {busy:.0%} of the time, waited for {waited:.0%}, "
            f"and collected garbage for {now['collection'] * 1000:.0f} ms at the longest"
        )
        self.waited = max(self.waited, waited)
        print(f"{name}: {told['most']} clients at a time; what became of them:")
        for fate, each in told["fates"].items():
            longest = f", let go within {each['longest']:.2f} s" if each["longest"] else ""
            early = f", {each['early']} ended by the server first" if each["early"] else ""
            print(f"  {each['came']:>5} {fate}{longest}{early}")
        self.verdict.note_fates(name, told["fates"])
        await self.settle(name)
        said = await self.server.ask("memory")
        print(f"{name}: {said['rss'] / 2**20:.1f} MB afterwards")

    async def listen(self, name: str) -> None:
        """Ask the good clients what they heard in the round that is over."""
        said = self.late[name] = await self.good.ask("report")
        if said["events"]:
            figures = (f"{key} {said[key] * 1000:.1f} ms" for key in ("p50", "p99", "most"))
            print(f"{name}: the good ones heard {said['events']} events, {', '.join(figures)} late")

    async def settle(self, name: str) -> None:
        """Wait until all is as it was before."""
        limit = GRACE + (self.bounds["send_timeout"] or SEND_TIMEOUT)
        if "vanish" in self.options.fates:
            limit += KEEP_ALIVE + (self.bounds["tcp_user_timeout"] or USER_TIMEOUT)
        begun = trio.current_time()
        while (now := gauges(await self.server.ask("statistics"))) != self.before:
            if trio.current_time() - begun > limit:
                break
            await trio.sleep(0.25)
        took = trio.current_time() - begun
        wrong = [
            f"{key} {self.before[key]} → {now[key]}" for key in now if now[key] != self.before[key]
        ]
        figures = ", ".join(f"{key} {value}" for key, value in self.before.items())
        self.verdict.note(
            not wrong,
            f"{name}: tasks, sockets and streams as before",
            f"after {limit:g} s still {', '.join(wrong)}"
            if wrong
            else f"{figures}, {took:.1f} s later",
        )

    def compare(self) -> None:
        """Compare the lateness beside the bad ones with that beside the polite ones."""
        alone, polite, bad = (self.late[name]["p99"] for name in ("alone", "polite", "bad"))
        if None in (alone, polite, bad):
            self.verdict.note(False, "lateness", "the good ones heard nothing")
            return
        within = bad <= 2 * max(polite, FLOOR)
        if not within and self.waited > OTHERS:
            within = None  # it may be theirs
        self.verdict.note(
            within,
            "p99 lateness of the good ones within twice that beside polite clients",
            f"{bad * 1000:.1f} ms beside bad ones, {polite * 1000:.1f} ms beside polite ones "
            f"(at least {FLOOR * 1000:g} ms taken), {alone * 1000:.1f} ms alone; "
            f"other programs had the server's processor for {self.waited:.0%} of a round",
        )

    async def stop(self) -> None:
        """Stop the server, and look at how all ended."""
        said = await self.good.ask("report")
        missing = said["gaps"], said["troubles"], said["over"]
        self.verdict.note(
            missing == (0, [], 0),
            f"the {self.options.good} good ones miss nothing",
            f"{said['gaps']} gaps, {said['over']} over early, {len(said['troubles'])} in trouble"
            + "".join(f"; {each}" for each in said["troubles"][:3]),
        )
        last = await self.server.ask("stop", within=20 * SLACK)
        status = await self.server.end(within=20 * SLACK)
        self.verdict.note(
            status == 0 and last["started"] == last["finished"],
            "the server stops, and every producer has finished",
            f"status {status}, {last['started']} started, {last['finished']} finished",
        )
        with trio.move_on_after(GRACE):
            while (said := await self.good.ask("report"))["over"] < self.options.good:  # noqa: ASYNC110
                await trio.sleep(0.1)
        self.verdict.note(
            said["over"] == self.options.good and not said["troubles"],
            "the stop ends the good streams properly",
            f"{said['over']} of {self.options.good}"
            + "".join(f"; {each}" for each in said["troubles"][:3]),
        )


def processors() -> tuple[int | None, int | None]:
    """Return the server's processor and the clients', if there are two."""
    mine = sorted(os.sched_getaffinity(0))
    return (mine[0], mine[1]) if len(mine) > 1 else (None, None)


def allow_descriptors(number: int) -> None:
    """Have the processes open so many files, or say that they cannot."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        print(f"torture needs {number} open files, and may have {hard}: see ulimit -Hn")
        sys.exit(2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


async def torture(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """Start all processes, and end them whatever happens."""
    authority = trustme.CA()
    files = [str(folder / name) for name in ("authority.pem", "certificate.pem", "key.pem")]
    identity = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(files[0])
    for blob in identity.cert_chain_pems:
        blob.write_to_path(files[1], append=True)
    identity.private_key_pem.write_to_path(files[2])

    first, second = processors()
    if first is None:
        print("one processor only: the clients' work makes the server late")
    # Python's own allocator gives nothing back of a megabyte in which one object lives; the C
    # library's, trimmed, gives back every page. So what has grown is what is held.
    env = {"PYTHONMALLOC": "malloc"}
    async with child("server", *files[1:], folder=folder, cpu=first, env=env) as server:
        with trio.fail_after(20 * SLACK):
            bounds = await server.answer()
        ports = [str(port) for port in bounds["ports"]]
        print(f"the server: {bounds}; at most {PACE:g} new clients in a second")
        few = [files[0], *ports, str(options.good)]
        async with (
            child("good", *few, folder=folder, cpu=second) as good,
            child("bad", files[0], *ports, folder=folder, cpu=second, nice=5) as bad,
        ):
            this = Torture(options, server, good, bad, bounds, verdict)
            try:
                async with trio.open_nursery() as nursery:
                    for process in (good, bad):
                        nursery.start_soon(watch, process)
                    nursery.start_soon(watch, server, 0)
                    await this.everything()
                    nursery.cancel_scope.cancel()
            except* Died as group:
                errors = {str(error) for error in group.exceptions}
                verdict.note(False, "the processes live to the end", "; ".join(errors))
        tracebacks = server.log().count("Traceback (most recent call last)")
        print(f"the server's log: {tracebacks} tracebacks; last line: {server.last_line()}")
        if options.log:
            options.log.write_text(server.log())


async def watch(process: Child, *expected: int) -> None:
    """Fail as soon as a process ends that should not."""
    if await process.end(within=float("inf")) not in expected:
        raise Died(await process.last_words())


def main() -> int:
    """Do it, print what came of it, and return the exit status."""
    parser = argparse.ArgumentParser(description="Torture the server.")
    parser.add_argument("--seconds", type=float, default=60, help="of bad clients [default: 60]")
    parser.add_argument("--clients", type=int, default=2000, help="at a time [default: 2000]")
    parser.add_argument("--good", type=int, default=50, help="that behave [default: 50]")
    parser.add_argument("--seed", type=int, default=1, help="of all chance [default: 1]")
    parser.add_argument("--fates", default=",".join(ALL_FATES), help="these only [default: all]")
    parser.add_argument("--without", default="", help="not these fates")
    parser.add_argument(
        "--no-figures",
        action="store_true",
        help="the bad round only; neither lateness nor memory is compared",
    )
    parser.add_argument("--log", type=Path, help="where to leave the server's log")
    options = parser.parse_args()
    without = options.without.split(",")
    options.fates = [name for name in options.fates.split(",") if name not in without]
    if unknown := [name for name in options.fates if name not in ALL_FATES]:
        parser.error(f"no fates {unknown}; there are {', '.join(ALL_FATES)}")
    allow_descriptors(2 * options.clients + 1000)

    verdict = Verdict()
    with tempfile.TemporaryDirectory() as folder:
        trio.run(torture, options, Path(folder), verdict)
    print("\n".join(verdict.lines))
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
