"""Fuzz the readers for a while: `make fuzz`, or `make fuzz MINUTES=5`.

Each case is read in a child process, whose memory, time and death are watched. What raises anything
but ContentError, UsageError or OSError, takes more than `MOST_SECONDS` of processor time or
`MOST_MEMORY` beyond what its process had, or ends the process, is kept in `tests/fuzz/corpus`.
"""

import argparse
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tests.fuzz.targets import TARGETS, name_of, valid

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
MOST_SECONDS = 10  # of processor time for one case
MOST_MEMORY = 1 << 30  # bytes that a case may add to the peak of its process
ADDRESSES = 12 << 30  # bytes of address space of a process; a claim beyond is an error, not a wait
CASES = 200  # of a reader, in one process


def work(name: str, seed: int, folder: str, connection: Connection) -> None:
    """Read cases of one reader, and tell of each before and after."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    warnings.simplefilter("ignore")
    target, random = TARGETS[name], Random(seed)
    for content in valid(target):
        target.outcome(content, Path(tempfile.mkdtemp(dir=folder)))  # imports what it needs
    for _ in range(CASES):
        content = target.case(random)
        connection.send(("case", content))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        try:
            with tempfile.TemporaryDirectory(dir=folder) as own:
                outcome = target.outcome(content, Path(own)).partition(":")[0]
        except BaseException:
            outcome = "raised " + " | ".join(traceback.format_exc().strip().splitlines()[-4:])
            outcome = outcome.replace(f"{ROOT}/", "")
        signal.setitimer(signal.ITIMER_PROF, 0)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if grown > MOST_MEMORY:
            outcome = f"took {grown >> 20} MiB"
        connection.send(("outcome", outcome))
    connection.send(("end", ""))


def turn(name: str, seed: int) -> Counter[str]:
    """Run one process of cases; how many came out how. What must not happen is kept and told."""
    counts: Counter[str] = Counter()
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        child = multiprocessing.get_context("fork").Process(
            target=work, args=(name, seed, folder, theirs)
        )
        child.start()
        theirs.close()
        content, kind, outcome = b"", "", ""
        while kind != "end":
            try:
                kind, value = ours.recv()
            except EOFError:
                child.join()
                outcome = f"ended the process ({child.exitcode})"
                keep(name, content, outcome, counts)
                break
            if kind == "case":
                content = value
            elif kind == "outcome" and value in ("read", "refused"):
                counts[value] += 1
            elif kind == "outcome":
                keep(name, content, value, counts)
        child.join()
    return counts


def keep(name: str, content: bytes, outcome: str, counts: Counter[str]) -> None:
    """Put a case in the corpus."""
    counts["found"] += 1
    path = CORPUS / name / name_of(content)
    if counts["found"] <= 3:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    print(f"{name}: {outcome} ({path.name}, {len(content):,} bytes)", flush=True)


def main() -> int:
    """Fuzz all readers in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=sorted(TARGETS), choices=sorted(TARGETS))
    chosen = parser.parse_args()
    began = time.monotonic()
    totals: dict[str, Counter[str]] = {name: Counter() for name in chosen.only}
    seed = chosen.seed
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}: {chosen.minutes:g} minutes, seed {seed}")
    for name in chosen.only:
        valid(TARGETS[name])  # once, for all processes
    while time.monotonic() - began < 60 * chosen.minutes:
        for name in chosen.only:
            totals[name] += turn(name, seed)
            if time.monotonic() - began > 60 * chosen.minutes:
                break
        seed += 1
    minutes = (time.monotonic() - began) / 60
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}: after {minutes:.1f} minutes")
    for name, counts in totals.items():
        figures = (f"{counts[kind]:7} {kind}" for kind in ("read", "refused", "found"))
        print(f"  {name:14}", *figures)
    return 1 if any(counts["found"] for counts in totals.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
