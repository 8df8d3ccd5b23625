"""`python -m swarmcore.testing.simulation`: run seeds, and show what happened in one that failed."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from itertools import count

from swarmcore.testing.simulation.mutants import all_mutants
from swarmcore.testing.simulation.run import Result, simulate

_EXIT_BROKEN = 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m swarmcore.testing.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0:1000", metavar="FIRST:LAST", help="which seeds; the last is not run")
    parser.add_argument(
        "--seconds", type=float, help="run for so long, from the first seed on; then --seeds ends nothing"
    )
    parser.add_argument("--trace", type=int, metavar="SEED", help="run one seed and print all that happened")
    parser.add_argument("--mutants", type=int, metavar="SEEDS", help="how many seeds each deliberate mistake survives")
    parser.add_argument("--quiet", action="store_true", help="in a transcript: nothing about heartbeats")
    args = parser.parse_args()
    # What a real manager logs about its disk is in the transcripts where it matters.
    logging.disable(logging.CRITICAL)
    if args.trace is not None:
        return _trace(args.trace, quiet=args.quiet)
    if args.mutants is not None:
        return _mutants(args.mutants)
    first, _, last = args.seeds.partition(":")
    return _run(int(first), int(last or int(first) + 1), args.seconds)


def _run(first: int, last: int, seconds: float | None) -> int:
    started = time.perf_counter()
    simulated = 0.0
    elections = agreed = acknowledged = done = 0
    for seed in count(first) if seconds is not None else range(first, last):
        if seconds is not None and time.perf_counter() - started >= seconds:
            break
        result = simulate(seed)
        if result.violation is not None:
            _trace(seed, quiet=True)
            return _EXIT_BROKEN
        done += 1
        simulated += result.simulated_seconds
        elections += result.elections
        agreed += result.agreed
        acknowledged += result.acknowledged
    real = max(time.perf_counter() - started, 1e-9)
    print(
        f"{done} seeds from {first} on: all held. {simulated:.0f} s simulated in {real:.1f} s, {simulated / real:.0f} "
        f"times as fast; {elections} elections, {agreed} entries agreed, {acknowledged} operations acknowledged"
    )
    return 0


def _mutants(most: int) -> int:
    for mutant in all_mutants():
        found = mutant.seeds_until_found(most)
        print(f"{mutant.name:40} {f'found by seed {found - 1}' if found else f'survives {most} seeds'}", flush=True)
    return 0


def _trace(seed: int, *, quiet: bool) -> int:
    result: Result = simulate(seed, is_traced=True)
    for line in result.transcript:
        if not (quiet and "Heartbeat" in line):
            print(line)
    print()
    if result.violation is None:
        print(f"seed {seed}: all held in {result.simulated_seconds:.1f} simulated seconds; transcript {result.digest}")
        return 0
    print(f"seed {seed}: BROKEN: {result.violation}")
    print(f"again: python -m swarmcore.testing.simulation --trace {seed}")
    return _EXIT_BROKEN


if __name__ == "__main__":
    sys.exit(main())
