"""Exports a PyTorch cell as a meantime model package: one step, a symbolic batch, named states.

    python export_step.py OUT_FOLDER

needs torch and onnx. It writes model.onnx, model.toml and features.toml; `meantime model verify OUT_FOLDER` then checks them.
Train the module as you like, load its weights where the comment says so, and keep `export`, which is all that matters here.
"""

import json
import pathlib
import sys

import torch
from torch import nn

FEATURES = 4  # floats of a feature row: as many as features.toml gives
HIDDEN = 32
COMPONENTS = 8  # of the log-normal mixture


class Step(nn.Module):
    """One event: features [B, F] and the states before it to the parameters of the law [B, 3 K] and the states after it.

    The law's parameters are K weights (logits), K means and K log scales of ln(gap): the head `lognormal_mixture`.
    """

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(FEATURES, HIDDEN)
        self.head = nn.Linear(HIDDEN, 3 * COMPONENTS)

    def forward(self, x, h, c):
        h, c = self.cell(x, (h, c))
        return self.head(h), h, c


def export(module, features, states, outputs, path):
    """Writes the ONNX file. `states` names each state and its width; the next value of `h` is called `h_next`."""
    names = ["x", *states]
    example = [torch.zeros(3, width) for width in [features, *states.values()]]
    batch = torch.export.Dim("B")  # the same symbol on every input: one graph for every batch size
    torch.onnx.export(
        module.eval(),
        tuple(example),
        str(path),
        input_names=names,
        output_names=[*outputs, *(f"{name}_next" for name in states)],
        dynamic_shapes=tuple({0: batch} for _ in names),
        opset_version=18,  # the newest that is tested
        dynamo=True,
        external_data=False,
    )


MODEL = """format = 1
name = "pytorch-lstm"
version = "1"

[input]
features = "x"

{states}
[head]
kind = "lognormal_mixture"
outputs = ["law"]
components = {components}
time_unit = "h"
min_gap = 1e-6
"""

STATE = """[[state]]
input = "{name}"
output = "{name}_next"
shape = [{width}]
"""

# The feature row: ln(gap) standardised, whether the event is the key's first, sine and cosine of the hour. docs/model-package.md has all kinds.
RECIPE = """format = 1

[[column]]
kind = "gap"
unit = "h"
scale = "log_standard"
mean = 0.0
std = 2.0
floor = 1e-6
first = 0.0

[[column]]
kind = "is_first"

[[column]]
kind = "calendar"
cycle = "hour"
zone = "UTC"
"""


def main(out):
    torch.manual_seed(1)
    module = Step()  # load your trained weights here: module.load_state_dict(torch.load("step.pt"))
    states = {"h": HIDDEN, "c": HIDDEN}
    out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        export(module, FEATURES, states, ["law"], out / "model.onnx")
    tables = "".join(STATE.format(name=name, width=width) + "\n" for name, width in states.items())
    (out / "model.toml").write_text(MODEL.format(states=tables, components=COMPONENTS))
    (out / "features.toml").write_text(RECIPE)
    # Two steps of one key as PyTorch computes them, for comparison.
    x, state, laws = torch.randn(2, 1, FEATURES), [torch.zeros(1, width) for width in states.values()], []
    with torch.no_grad():
        for row in x:
            law, *state = module(row, *state)
            laws.append(law[0].tolist())
    print(json.dumps({"x": x[:, 0].tolist(), "law": laws}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
