"""How much later do live events come while a backfill is under way? Hop latency with and without it, in one run.

    python -m bench.backfill                    # 100,000 settled events again, 20 s at 100 events/s each way
    python -m bench.backfill --records 20000 --seconds 10

One service, one topic of 6 partitions. First it settles the records, then paced events are measured with nothing else
to do, then the same pace while an order processes all of the records again in an epoch of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

from confluent_kafka import Consumer

from bench.contenders import wire
from bench.hop import PARTITIONS, WARM, Contender, Track, stop
from farandole.control import Command
from farandole.kafka.codec import Codec
from farandole.kafka.control import Control
from farandole.orders import CANCELLED, Order, Range, Stretch
from farandole.topics import CONTROL, own_schemas

RUN = ["-m", "farandole", "run", "bench.contenders.farandole_hop:Hop", "--log-level", "warning"]
AIM = 3.0


class Answers:
    """What came out, by number: when each live event was answered, and how many records of the backfill were."""

    def __init__(self, reader: Consumer, live_from: int) -> None:
        self.live: dict[int, float] = {}
        self.first = self.again = 0
        self._reader, self._live_from, self._done = reader, live_from, threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._done.is_set():
            for message in self._reader.consume(500, timeout=0.02):
                if message.error():
                    continue
                now, record = time.time_ns(), wire.read_answered(message.value())
                if record["seq"] >= self._live_from:
                    self.live.setdefault(record["seq"], (now - record["sent_ns"]) / 1e6)
                elif any(name == "ce_epoch" for name, _ in message.headers() or ()):
                    self.again += 1
                else:
                    self.first += 1

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        self._reader.close()


class Bench:
    """One service with its topics, and what is sent to it."""

    def __init__(self, track: Track) -> None:
        self.track, self.options = track, track.options
        self.group = f"hop-backfill-{uuid.uuid4().hex[:6]}"
        self.asked, self.answered = f"bench.hop-{track.run}.asked.v1", f"bench.hop-{track.run}.answered.v1"
        self.asked_id, self.answered_id = track.topic(self.asked, wire.ASKED), track.topic(self.answered, wire.ANSWERED)
        track.own_topics(self.group)
        track.registry.register(f"{CONTROL}-value", own_schemas()[CONTROL])
        self.control = Control(track.bootstrap, Codec(track.registry, own_schemas(), trusted=own_schemas()))
        self.producer, self.seq = track.producer(), self.options.records
        self.answers = Answers(track.reader(self.answered), self.options.records)

    def start(self) -> subprocess.Popen:
        contender = Contender("farandole", "Farandole", [sys.executable, *RUN], {"HOP_GROUP": self.group})
        return self.track.start(contender, self.asked, self.answered, self.answered_id)

    def settle(self) -> None:
        for seq in range(self.options.records):
            self.track.produce(self.producer, self.asked, self.asked_id, seq)
            if seq % 1000 == 0:
                self.producer.poll(0)
        self.producer.flush()
        deadline = time.monotonic() + self.options.patience
        while self.answers.first < self.options.records:
            if time.monotonic() > deadline:
                sys.exit(f"{self.answers.first} of {self.options.records} settled in {self.options.patience:g} s")
            time.sleep(0.1)

    def order(self) -> Order:
        time.sleep(2)  # until the last of them is committed
        topic = self.track.admin.topics([self.asked])[self.asked]
        committed = self.track.admin.committed(self.group)
        ranges = [Range(self.asked, topic.topic_id, p, 0, committed[self.asked, p].offset) for p in range(PARTITIONS)]
        order = Order(uuid.uuid4().hex[:8], self.group, tuple(map(Stretch, ranges)), "backfill", cascade="none")
        self.give(order.command(round(time.time() * 1000)))
        return order

    def give(self, command: Command) -> None:
        self.control.save(command)

    def paced(self, seconds: int) -> list[float]:
        """Milliseconds from produced to read, of events at a steady pace."""
        interval, first, begin = 1 / self.options.rate, self.seq, time.monotonic()
        for number in range(seconds * self.options.rate):
            while time.monotonic() < begin + number * interval:
                self.producer.poll(min(0.0005, interval))
            self.track.produce(self.producer, self.asked, self.asked_id, first + number)
        self.seq += seconds * self.options.rate
        self.producer.flush()
        deadline = time.monotonic() + 30
        mine = range(first, self.seq)
        while not all(n in self.answers.live for n in mine) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [self.answers.live[n] for n in mine if n in self.answers.live]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000, help="settled events that are processed again")
    parser.add_argument("--rate", type=int, default=100, help="live events per second")
    parser.add_argument("--seconds", type=int, default=20, help="length of each measurement")
    parser.add_argument("--patience", type=float, default=300.0)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="backfill-") as folder:
        track = Track(options, Path(folder))
        bench = Bench(track)
        process = bench.start()
        try:
            bench.settle()
            bench.paced(WARM)
            idle = bench.paced(options.seconds)
            order = bench.order()
            while not bench.answers.again and process.poll() is None:
                time.sleep(0.05)
            before, began = bench.answers.again, time.monotonic()
            busy = bench.paced(options.seconds)
            again, took = bench.answers.again - before, time.monotonic() - began
            alone, began = bench.answers.again, time.monotonic()
            time.sleep(5)
            rest, lone = bench.answers.again - alone, time.monotonic() - began
            bench.give(replace(order, state=CANCELLED).command(round(time.time() * 1000)))
        finally:
            stop(process)
            bench.answers.close()
            track.close()
    print(
        f"{options.records:,} settled events again; {options.seconds} s at {options.rate} live events/s each way; "
        f"{os.cpu_count()} cores (load {load:.1f} before, {os.getloadavg()[0]:.1f} after), "
        f"Python {platform.python_version()}\n"
    )
    print("| live events | events | p50 | p99 | max |\n|---|---|---|---|---|")
    for title, found in (("nothing else to do", idle), ("during the backfill", busy)):
        cuts = statistics.quantiles(found, n=100)
        print(f"| {title} | {len(found):,} | {cuts[49]:.1f} ms | {cuts[98]:.1f} ms | {max(found):.1f} ms |")
    ratio = statistics.quantiles(busy, n=100)[98] / statistics.quantiles(idle, n=100)[98]
    print(f"\nratio of p99: {ratio:.2f} (at most {AIM:g} is the aim)")
    print(f"meanwhile {again / took:,.0f} records/s of the backfill; {rest / lone:,.0f} records/s without live events")


if __name__ == "__main__":
    main()
