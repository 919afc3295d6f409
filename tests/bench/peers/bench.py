"""Runs the job by meantime and by each peer over the same topic, compares what they wrote, prints a table. `run.sh` calls it.

    bench.py [EVENTS]    environment: README.md
"""

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy

from broker import Broker, Rows, dies_with_us, free_port

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ["PEERS_CACHE"])
MEANTIME = os.environ["MEANTIME"]
EVENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 16_000_000
KEYS = int(os.environ.get("PEERS_KEYS", 10_000))
SECONDS = float(os.environ.get("PEERS_SECONDS", 60))  # a peer is stopped when it has written for so long
ROUNDS = int(os.environ.get("PEERS_ROUNDS", 1))
ONLY = re.compile(os.environ.get("PEERS_ROWS", ""))  # names of rows; meantime's first is always run, it is what the others are compared with
CLOSE = 1e-5


class Failed(Exception):
    """A row that did not run; the others go on."""


def meantime(run, broker, topic, delivery):
    folder = fresh(run / topic)
    settings = {
        "source.brokers": broker.address,
        "source.topic": f"{run.name}-cards",
        "source.group": topic,
        "sink.topic": topic,
        "sink.delivery": delivery,
        "state.snapshots": folder / "snapshots",
        "dead_letter.path": folder / "dead-letters.ndjson",
        "model.package": run / "model",
    }
    sets = [f"--set={key}={value}" for key, value in settings.items()]
    return [([MEANTIME, "run", HERE / "pipeline", "--until-caught-up", *sets], {})]


def streams(run, broker, topic, guarantee):
    return java("Streams", [], run, broker, topic, guarantee)


def flink(run, broker, topic, guarantee):
    opens = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in ("lang", "util")]
    return java("Flink", opens, run, broker, topic, guarantee)


def java(name, options, run, broker, topic, guarantee):
    classpath = f"{CACHE}/classes:{(CACHE / f'{name.lower()}.classpath').read_text().strip()}"
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    settings = [broker.address, f"{run.name}-cards", topic, guarantee, run / "model", fresh(run / topic)]
    # By environment: in onnxruntime 1.29 a long command line, as a class path makes it, overflows the stack of a thread.
    return [(["java", "-Xmx2g", quiet, *options, f"peers.{name}", *settings], {"CLASSPATH": classpath})]


def quix(run, broker, topic, guarantee):
    settings = [broker.address, f"{run.name}-cards", topic, guarantee, run / "model"]
    return [([sys.executable, HERE / "peer_quix.py", *settings, fresh(run / topic / str(part))], {}) for part in range(2)]


def bytewax(run, broker, topic, _):
    recovery = fresh(run / topic)
    subprocess.run([sys.executable, "-m", "bytewax.recovery", recovery, "2"], check=True)
    names = {"BROKER": broker.address, "INPUT": f"{run.name}-cards", "OUTPUT": topic, "PACKAGE": run / "model"}
    names = {f"PEERS_{name}": str(value) for name, value in names.items()}
    addresses = f"127.0.0.1:{free_port()};127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "bytewax.run", "peer_bytewax:flow", "-r", recovery, "-s", "10", "-b", "0", "-a", addresses, "-i"]
    return [([*command, str(part)], names) for part in range(2)]


# Name, delivery, how it is started, its word for the delivery; None: a loop in this machine's memory with batches of so many.
PEERS = [
    ("meantime", "exactly once", meantime, "exactly_once"),
    ("Kafka Streams", "exactly once", streams, "exactly_once_v2"),
    ("Flink", "exactly once", flink, "EXACTLY_ONCE"),
    ("Quix Streams", "exactly once", quix, "exactly-once"),
    ("meantime", "at least once", meantime, "at_least_once"),
    ("Kafka Streams", "at least once", streams, "at_least_once"),
    ("Flink", "at least once", flink, "AT_LEAST_ONCE"),
    ("Quix Streams", "at least once", quix, "at-least-once"),
    ("Bytewax", "at least once", bytewax, ""),
    ("Python loop", "none", None, 1),
    ("Python loop, 256 a step", "none", None, 256),
]


def main():
    for name in signal.SIGTERM, signal.SIGHUP:
        signal.signal(name, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="peers-", dir=os.environ.get("PEERS_TMP")) as folder, Broker(CACHE) as broker:
        try:
            bench(Path(folder), broker)
        finally:
            if not broker.child:
                broker.delete(f"{Path(folder).name}-")


def bench(run, broker):
    prepare(run, broker)
    reference, found, failed, worst = None, {}, [], 0.0
    for turn in range(ROUNDS):
        for peer in PEERS:
            name, delivery, start, word = peer
            title = f"{name}, {delivery}"
            if (reference or turn) and not ONLY.search(title):
                continue
            try:
                topic = f"{run.name}-{re.sub('[^a-z0-9]+', '-', title.lower())}-{turn}"
                ids, scores, rate, late, cpu, memory = measured(run, broker, topic, start, word)
                if reference is None:
                    reference = ids, scores
                    if len(ids) != EVENTS:
                        raise SystemExit(f"meantime wrote {len(ids)} rows of {EVENTS}")
                apart = compare(title, reference, ids, scores)
            except Failed as why:
                if reference is None:
                    raise SystemExit(why)
                failed.append(f"{title}: {why}")
                say(failed[-1])
                continue
            worst = max(worst, apart)
            found.setdefault(peer, []).append((rate, late, cpu, memory, len(ids), apart))
            say(f"round {turn + 1}  {title:<36} {len(ids):>9,} events  {rate:>9,.0f} events/s  second half {late:>9,.0f}  largest difference {apart:.1e}")
    table(found, worst)
    if failed:
        raise SystemExit("\n".join(["FAILED", *failed]))


def prepare(run, broker):
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "preexec_fn": dies_with_us}
    cards = [MEANTIME, "generate", HERE / "pipeline", "--stream", "cards"]
    history = run / "history.ndjson"
    subprocess.run([*cards, "--events", "50000", "--keys", "1000", "--seed", "2", "--to", "file", "--out", history], **quiet)
    subprocess.run([MEANTIME, "fit", HERE / "pipeline", "--from", history, "--out", run / "model"], **quiet)
    say(f"{EVENTS:,} payments of {KEYS:,} cards into a topic of 4 partitions")
    cards += ["--keys", str(KEYS)]
    topic = [f"--set=source.brokers={broker.address}", f"--set=source.topic={run.name}-cards", "--to", "kafka"]
    subprocess.run([*cards, "--events", str(EVENTS), *topic], **quiet)
    few = str(min(EVENTS, 3_000_000))  # the same payments: a shorter stream is the beginning of a longer one
    subprocess.run([*cards, "--events", few, "--to", "file", "--out", run / "cards.ndjson"], **quiet)


def measured(run, broker, topic, start, word):
    """Runs one row: ids and scores, events/s in all and of the second half, CPU seconds per million events, MB."""
    if start is None:
        return loop(run, topic, word)
    broker.create(topic)
    cpu, memory = follow(broker, topic, start(run, broker, topic, word), run / f"{topic}.log", start is meantime)
    ids, scores, times = broker.read(topic)
    shutil.rmtree(run / topic, ignore_errors=True)
    if len(ids) < 2:
        raise Failed("it wrote nothing")
    times.sort()
    spent = times[-1] - times[0]
    half = times[0] + spent // 2
    late = numpy.count_nonzero(times > half) / (times[-1] - half)
    return ids, scores, 1000 * (len(times) - 1) / spent, 1000 * late, cpu, memory


def follow(broker, topic, commands, log, to_the_end):
    """Starts the processes, waits until they have written for SECONDS or have nothing left to do, stops them. CPU seconds per million rows, MB."""
    processes = []
    consumer = broker.consumer("read_uncommitted")
    began = changed = time.monotonic()
    first, rows, cpu, memory, before = None, 0, 0.0, 0.0, 0.0
    try:
        with log.open("w") as out:
            for command, names in commands:
                environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1", **names}
                command = [str(word) for word in command]
                processes.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out, preexec_fn=dies_with_us))
        while True:
            time.sleep(0.25)
            used = [usage(process.pid) for process in processes if process.poll() is None]
            if any(process.returncode for process in processes):
                raise Failed(f"it ended with {[process.returncode for process in processes]}:\n{log.read_text()[-3000:]}")
            now, end = time.monotonic(), broker.end(consumer, topic)
            if used:
                cpu, memory = map(sum, zip(*used))
            if end != rows:
                rows, changed = end, now
                if first is None:
                    first, before = now, cpu
            if first is None and (now - began > 120 or not used):
                raise Failed(f"it wrote nothing:\n{log.read_text()[-3000:]}")
            enough = not to_the_end and (now - (first or now) > SECONDS or first and now - changed > 8)
            if enough or not used:
                return (cpu - before) / rows * 1e6, memory
    finally:
        consumer.close()
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def usage(pid):
    """CPU seconds and the most memory in MB of a process so far (Linux; elsewhere nothing is known)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        high = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(high[1]) / 1024 if high else 0.0
    except OSError:
        return 0.0, 0.0


def loop(run, topic, batch):
    sink = run / f"{topic}.ndjson"
    command = [sys.executable, HERE / "loop.py", run / "cards.ndjson", sink, run / "model", str(batch), str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=dies_with_us)
    if done.returncode:
        raise Failed(done.stderr[-3000:])
    count, seconds, late, cpu, memory = map(float, done.stdout.split())
    rows = Rows()
    with sink.open("rb") as lines:
        for line in lines:
            rows.add(line)
    sink.unlink()
    ids, scores, _ = rows.done()
    return ids, scores, (count - 1) / seconds, late, cpu / count * 1e6, memory


def compare(title, reference, ids, scores):
    """Each payment of a card once, from its first on without a gap, each with the score that meantime gave it."""
    cards, numbers = ids // 1_000_000, ids % 1_000_000
    new = numpy.diff(cards, prepend=-1) != 0
    steps = numpy.diff(numbers, prepend=0)
    if (numbers[new] != 0).any() or (steps[~new] != 1).any():
        raise Failed("payments are missing or come twice")
    at = numpy.minimum(numpy.searchsorted(reference[0], ids), len(reference[0]) - 1)
    if (reference[0][at] != ids).any():
        raise Failed("it scored payments that meantime did not")
    apart = float(numpy.abs(reference[1][at] - scores).max())
    if not apart <= CLOSE:
        raise Failed(f"a score is {apart:.1e} from meantime's")
    return apart


def table(found, worst):
    middle = {peer: [statistics.median(values) for values in zip(*rounds)] for peer, rounds in found.items()}
    best = {peer[1]: rates[:2] for peer, rates in middle.items() if peer[0] == "meantime"}
    say(f"\n{machine()}\n{versions()}\n")
    say("| what | delivery | events/s | meantime is faster | second half | meantime is faster | CPU s per million | MB | events | largest difference |")
    say("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for peer, (rate, late, cpu, memory, count, apart) in middle.items():
        ours = best.get(peer[1], best["exactly once"])
        ratio = "" if peer[0] == "meantime" else f"{ours[0] / rate:.1f} x"
        ratio_late = "" if peer[0] == "meantime" else f"{ours[1] / late:.1f} x"
        say(f"| {peer[0]} | {peer[1]} | {rate:,.0f} | {ratio} | {late:,.0f} | {ratio_late} | {cpu:.1f} | {memory:,.0f} | {count:,.0f} | {apart:.1e} |")
    say(f"\nAll rows agree with meantime's first: largest difference of a score {worst:.1e}, allowed {CLOSE:.0e}.")


def machine():
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} processors, {model[1] if model else 'unknown'}; {ROUNDS} round(s), the median"


def versions():
    java = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr.split('"')[1]
    paths = "".join((CACHE / f"{name}.classpath").read_text() for name in ("broker", "streams", "flink"))
    jars = dict(re.findall(r"/(kafka_2\.13|kafka-streams|flink-clients|flink-connector-kafka|onnxruntime)-([^/]+)\.jar", paths))
    own = subprocess.run([MEANTIME, "--version"], capture_output=True, text=True).stdout.strip()
    pythons = ", ".join(f"{name} {version(name)}" for name in ("quixstreams", "bytewax", "confluent-kafka", "onnxruntime"))
    return (
        f"{own}; Java {java}, Kafka {jars['kafka_2.13']}, Kafka Streams {jars['kafka-streams']}, "
        f"Flink {jars['flink-clients']} with connector {jars['flink-connector-kafka']}, onnxruntime {jars['onnxruntime']}; "
        f"Python {sys.version.split()[0]}, {pythons}"
    )


def fresh(folder):
    folder.mkdir(parents=True)
    return folder


def say(text):
    print(text, flush=True)


if __name__ == "__main__":
    main()
