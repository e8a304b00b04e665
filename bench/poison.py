"""Does one poisoned record key hold up the others? Hop latency of 999 keys with and without it, in one run.

    python -m bench.poison                     # 1,000 keys, 20 s at 500 events/s, twice each, alternating
    python -m bench.poison --seconds 10 --rounds 1

Every event of the poisoned key fails, is tried again for minutes, and parks; the later ones stand behind the first.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from bench.hop import ACCOUNTS, PARTITIONS, Contender, Figures, Track, latency

RUN = ["-m", "farandole", "run", "bench.contenders.farandole_poison:Poison", "--log-level", "warning"]


def contender(poison: str) -> Contender:
    return Contender("farandole", "poisoned" if poison else "clean", [sys.executable, *RUN], {"HOP_POISON": poison})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=500, help="events per second")
    parser.add_argument("--seconds", type=int, default=20, help="length of one round")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each kind, alternating")
    parser.add_argument("--patience", type=float, default=90.0)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    found: dict[str, list[float]] = {"": [], "account-7": []}
    with tempfile.TemporaryDirectory(prefix="poison-") as folder:
        for _ in range(options.rounds):
            for poison in found:
                track, figures = Track(options, Path(folder)), Figures()
                print(f"{'with' if poison else 'without'} poison …", file=sys.stderr, flush=True)
                latency(track, contender(poison), figures, silent=1 / ACCOUNTS if poison else 0)
                track.close()
                found[poison] += figures.latencies
                print(
                    f"  {len(figures.latencies)} events, {figures.late} did not come, {figures.remark}", file=sys.stderr
                )
    print(
        f"{ACCOUNTS:,} keys, {PARTITIONS} partitions, {options.rounds} x {options.seconds} s at {options.rate} events/s; "
        f"{os.cpu_count()} cores (load {load:.1f} before), Python {platform.python_version()}\n"
    )
    print("| run | events of the other keys | p50 | p99 |\n|---|---|---|---|")
    cuts = {poison: statistics.quantiles(latencies, n=100) for poison, latencies in found.items()}
    for poison, latencies in found.items():
        title = "one key poisoned" if poison else "no poison"
        print(f"| {title} | {len(latencies):,} | {cuts[poison][49]:.1f} ms | {cuts[poison][98]:.1f} ms |")
    print(f"\nratio of p99: {cuts['account-7'][98] / cuts[''][98]:.2f} (at most 1.5 is the aim)")


if __name__ == "__main__":
    main()
