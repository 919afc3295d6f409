"""The job as an application of Quix Streams: BROKER INPUT OUTPUT GUARANTEE PACKAGE STATE_DIR."""

import struct
import sys

import numpy
from quixstreams import Application

from job import Job

broker, source, sink, guarantee, package, folder = sys.argv[1:]
job = Job(package)
time = struct.Struct("<q")


def score(event, state):
    held = state.get_bytes("card")
    last, hidden = None, None
    if held is not None:
        (last,) = time.unpack_from(held)
        hidden = numpy.frombuffer(held, numpy.float32, offset=8).reshape(job.fresh.shape)
    row, after = job.one(event, last, hidden)
    state.set_bytes("card", time.pack(max(event["ts"], last or 0)) + after.tobytes())
    return row


app = Application(
    broker_address=broker,
    consumer_group=sink,
    auto_offset_reset="earliest",
    processing_guarantee=guarantee,
    state_dir=folder,
    loglevel="WARNING",
)
frame = app.dataframe(app.topic(source))
frame = frame.apply(score, stateful=True)
frame.to_topic(app.topic(sink))
app.run()
