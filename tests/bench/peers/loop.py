"""The job without a framework: lines of a file to lines of a file, states in a dict, nothing survives: INPUT OUTPUT PACKAGE BATCH SECONDS.

With BATCH 1 one payment at a time. With more, as many payments of different cards as come one after the other, up to BATCH, are one step:
what a careful user would write by hand. Prints payments, seconds from the first row written to the last, events/s of the second half,
CPU seconds, MB.
"""

import resource
import sys
import time

import numpy
import orjson

from job import Job, output

source, sink, package, batch, seconds = sys.argv[1:]
job, batch, seconds = Job(package), int(batch), float(seconds)
states, none = {}, (None, None)


def single(event):
    last, hidden = states.get(event["card"], none)
    row, after = job.one(event, last, hidden)
    states[event["card"]] = max(event["ts"], last or 0), after
    return [row]


def together(events):
    held = [states.get(event["card"], none) for event in events]
    rows = [job.features(event, last) for event, (last, _) in zip(events, held)]
    hidden = numpy.concatenate([job.fresh if one is None else one for _, one in held])
    logits, after = job.step(rows, hidden)
    for at, (event, (last, _)) in enumerate(zip(events, held)):
        states[event["card"]] = max(event["ts"], last or 0), after[at : at + 1].copy()
    return [output(event, logit) for event, logit in zip(events, logits[:, 0].tolist())]


def batches(lines):
    waiting, cards = [], set()
    for line in lines:
        event = orjson.loads(line)
        if len(waiting) == batch or event["card"] in cards:
            yield waiting
            waiting, cards = [], set()
        waiting.append(event)
        cards.add(event["card"])
    if waiting:
        yield waiting


marks = []  # (seconds, payments so far)
count = 0
with open(source, "rb") as lines, open(sink, "wb") as out:
    for rows in map(single, map(orjson.loads, lines)) if batch == 1 else map(together, batches(lines)):
        out.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        count += len(rows)
        if not marks or count - marks[-1][1] >= 500:
            marks.append((time.perf_counter(), count))
            if marks[-1][0] - marks[0][0] > seconds:
                break
spent = marks[-1][0] - marks[0][0]
half = next(mark for mark in marks if mark[0] >= marks[0][0] + spent / 2)
late = (marks[-1][1] - half[1]) / (marks[-1][0] - half[0])
used = resource.getrusage(resource.RUSAGE_SELF)
print(marks[-1][1] - marks[0][1], spent, late, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
