"""A Kafka broker for the benchmark, and what is done with topics: the one at MEANTIME_KAFKA, or one that is started and ends with this process."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4


def dies_with_us():
    """Runs in a child between fork and exec: it is killed when this process ends, however that happens (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Broker:
    """As a context manager: gives the address, ends the broker that it has started."""

    def __init__(self, cache):
        self.cache = cache
        self.child = None
        self.folder = None

    def __enter__(self):
        self.address = os.environ.get("MEANTIME_KAFKA") or self.start()
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 2})  # not that the broker is gone at the end
        return self

    def __exit__(self, *_):
        if self.child:
            self.child.kill()
            self.child.wait()
            self.folder.cleanup()

    def start(self):
        self.folder = tempfile.TemporaryDirectory(prefix="meantime-peers-", dir=os.environ.get("PEERS_TMP"))
        folder = Path(self.folder.name)
        port, controller = free_port(), free_port()
        # As tests/broker/harness.rs has it, but for the delay of the first rebalance, which is Kafka's default: so the members of a group begin together.
        (folder / "server.properties").write_text(
            f"process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n"
            f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n"
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n"
            "inter.broker.listener.name=PLAINTEXT\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n"
            f"log.dirs={folder}/logs\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n"
            "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n"
            "log.retention.ms=-1\n"
        )
        java = ["java", "-Xmx1g", "-cp", (self.cache / "broker.classpath").read_text().strip()]
        format = ["kafka.tools.StorageTool", "format", "-t", "bWVhbnRpbWUtcGVlcnMtMQ", "-c", folder / "server.properties"]
        subprocess.run([*java, *format], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=dies_with_us)
        log = folder / "broker.log"
        with log.open("w") as out:
            command = [*java, "kafka.Kafka", folder / "server.properties"]
            self.child = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=dies_with_us, start_new_session=True)
        for _ in range(1200):
            if "Kafka Server started" in log.read_text():
                return f"127.0.0.1:{port}"
            if self.child.poll() is not None:
                break
            time.sleep(0.05)
        tail = log.read_text()[-2000:]
        self.__exit__()
        raise SystemExit(f"the broker did not start:\n{tail}")

    def create(self, topic):
        """A topic whose records carry the time at which the broker took them in."""
        wanted = NewTopic(topic, PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
        self.admin.create_topics([wanted])[topic].result(30)

    def delete(self, run):
        """Removes all topics that have the run in their names: the benchmark's own, changelogs too."""
        found = [topic for topic in self.admin.list_topics(timeout=30).topics if run in topic]
        for done in self.admin.delete_topics(found).values() if found else []:
            done.result(30)

    def consumer(self, isolation):
        return Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "peers-reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": isolation,
                "queued.max.messages.kbytes": 65536,
            }
        )

    def end(self, consumer, topic):
        """Sum of the next offsets, control records included."""
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, p), 30)[1] for p in range(PARTITIONS))

    def read(self, topic, isolation="read_committed"):
        """All rows of an output topic: ids as numbers, scores, times of arrival in ms."""
        rows = Rows()
        consumer = self.consumer(isolation)
        consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
        open_partitions = set(range(PARTITIONS))
        while open_partitions:
            for message in consumer.consume(10_000, 1.0):
                error = message.error()
                if error is None:
                    rows.add(message.value(), message.timestamp()[1])
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_partitions.discard(message.partition())
                else:
                    raise KafkaException(error)
        consumer.close()
        return rows.done()


class Rows:
    """Output rows as they are read, 24 bytes each."""

    def __init__(self):
        self.parts, self.ids, self.scores, self.times = [], [], [], []

    def add(self, payload, at=0):
        row = orjson.loads(payload)
        text, card = row["id"], row["card"]  # c0000042-000007: the eighth payment of card c0000042
        if text[:8] != card or len(row) != 3:
            raise SystemExit(f"not a row of this job: {row}")
        self.ids.append(int(text[1:8] + text[9:]))
        self.scores.append(row["score"])
        self.times.append(at)
        if len(self.ids) == 500_000:
            self.pack()

    def pack(self):
        kinds = numpy.int64, numpy.float64, numpy.int64
        self.parts.append([numpy.array(values, kind) for values, kind in zip((self.ids, self.scores, self.times), kinds)])
        self.ids, self.scores, self.times = [], [], []

    def done(self):
        """Sorted by id."""
        self.pack()
        ids, scores, times = (numpy.concatenate(column) for column in zip(*self.parts))
        order = numpy.argsort(ids, kind="stable")
        return ids[order], scores[order], times[order]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
