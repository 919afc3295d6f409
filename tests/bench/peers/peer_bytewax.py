"""The job as a dataflow of Bytewax; its arguments come by environment, as `python -m bytewax.run` has none for dataflows."""

import os

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow

from job import Job

broker = [os.environ["PEERS_BROKER"]]
job = Job(os.environ["PEERS_PACKAGE"])


def score(held, payload):
    event = orjson.loads(payload)
    last, hidden = held or (None, None)
    row, after = job.one(event, last, hidden)
    return (max(event["ts"], last or 0), after), row


def message(keyed):
    card, row = keyed
    return KafkaSinkMessage(card.encode(), orjson.dumps(row))


flow = Dataflow("peers")
records = op.input("records", flow, KafkaSource(broker, [os.environ["PEERS_INPUT"]]))
payments = op.map("by_card", records, lambda record: (record.key.decode(), record.value))
rows = op.stateful_map("score", payments, score)
op.output("scores", op.map("message", rows, message), KafkaSink(broker, os.environ["PEERS_OUTPUT"]))
