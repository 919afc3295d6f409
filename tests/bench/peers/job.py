"""The job, for every peer that is written in Python: one payment and the state of its card in, a score and the next state out."""

import math
import tomllib
from pathlib import Path

import numpy
import onnxruntime

HOURS = {"s": 3600.0, "m": 60.0, "h": 1.0, "d": 1.0 / 24.0}


class Job:
    def __init__(self, package):
        package = Path(package)
        model = tomllib.loads((package / "model.toml").read_text())
        recipe = tomllib.loads((package / "features.toml").read_text())
        (state,) = model["state"]
        assert model["head"]["kind"] == "score" and model["head"]["link"] == "logit" and "calibration" not in model["head"]
        self.inputs = model["input"]["features"], state["input"]
        self.outputs = model["head"]["outputs"][0], state["output"]
        self.fresh = numpy.full((1, *state["shape"]), state["init"], numpy.float32)
        self.columns = [column(entry) for entry in recipe["column"]]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(package / "model.onnx", options, providers=["CPUExecutionProvider"])

    def features(self, event, last):
        """The feature row; `last` is the time of the card's last payment in ms, None for its first."""
        gap = None if last is None else max(event["ts"] - last, 0) / 3_600_000.0
        row = []
        for add in self.columns:
            add(row, event, gap)
        return row

    def step(self, rows, hidden):
        """Scores and next states of a batch of rows."""
        x = numpy.array(rows, numpy.float32)
        logit, after = self.session.run(self.outputs, {self.inputs[0]: x, self.inputs[1]: hidden})
        return logit, after

    def one(self, event, last, hidden):
        """The output row and the next state of one payment."""
        logit, after = self.step([self.features(event, last)], self.fresh if hidden is None else hidden)
        return output(event, logit[0, 0]), after


def output(event, logit):
    return {"id": event["id"], "card": event["card"], "score": 1.0 / (1.0 + math.exp(-float(logit)))}


def column(entry):
    """A function that appends the floats of one entry of features.toml; docs/model-package.md says what they are."""
    kind, scale = entry["kind"], entry.get("scale")
    if kind == "gap":
        unit, first, longest = HOURS[entry["unit"]], entry.get("first", 0.0), entry.get("longest", math.inf)
        mean, std, floor = entry.get("mean", 0.0), entry.get("std", 1.0), entry.get("floor", 0.0)

        def scaled(gap):
            gap = min(gap * unit, longest)
            return math.log1p(gap) if scale == "log1p" else (math.log(max(gap, floor)) - mean) / std if scale == "log_standard" else gap

        return lambda row, event, gap: row.append(first if gap is None else scaled(gap))
    if kind == "is_first":
        return lambda row, event, gap: row.append(1.0 if gap is None else 0.0)
    if kind == "numeric" and not entry.get("missing_flag"):
        field, (low, high) = entry["field"], entry.get("clip", (-math.inf, math.inf))
        mean, std, missing = entry.get("mean", 0.0), entry.get("std", 1.0), entry.get("missing", 0.0)

        def number(row, event, gap):
            value = event.get(field)
            if value is None:
                row.append(missing)
                return
            value = min(max(value, low), high)
            row.append(
                (value - mean) / std if scale == "standardise" else math.copysign(math.log1p(abs(value)), value) if scale == "log1p" else value
            )

        return number
    if kind == "category" and entry["encoding"] == "one_hot":
        field, words, unknown = entry["field"], entry["vocabulary"], entry.get("unknown", False)
        width = len(words) + unknown
        known = {word: [float(i == at) for i in range(width)] for at, word in enumerate(words)}
        other = [0.0] * len(words) + [1.0] * unknown
        return lambda row, event, gap: row.extend(known.get(event.get(field), other))
    raise SystemExit(f"features.toml has a column that the peers do not know: {entry}")
