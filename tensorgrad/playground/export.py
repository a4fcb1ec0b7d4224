"""What is taken along from the playground: the run as a Python script, its weights, its code."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import safetensors.numpy

from tensorgrad.playground.settings import ACTIVATIONS, OPTIMIZERS

if TYPE_CHECKING:
    from tensorgrad.playground.session import Session

_FEATURES = {
    "x": "x", "y": "y", "x2": "x * x", "y2": "y * y", "xy": "x * y", "sinx": "np.sin(x)",
    "siny": "np.sin(y)",
}  # fmt: skip


def script(session: Session) -> str:
    """A program that trains the network as it was trained here, and ends with the same bits.

    What was changed by hand while it ran (rates, weights, biases) is changed at the same steps. Of
    other changes the script knows the last: its first lines say so.
    """
    parts = [
        _head(session), _imports(session), _data(session), _model(session), _trainer(session),
        _changes(session), _loop(session), _END,
    ]  # fmt: skip
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(part for part in parts if part))


def _head(session: Session) -> str:
    learner = session.learner
    lines = [
        f'"""A network of the tensorgrad playground, trained for {learner.steps:,} steps.',
        "",
        f"tensorgrad playground shows it at /#{session.settings.fragment()}",
    ]
    if learner.mended:
        lines += [
            "",
            "It was changed while it ran in a way that this program does not repeat: "
            f"{', '.join(learner.mended)}.",
            "Here it is from the first step on as it was in the end.",
        ]
    return "\n".join([*lines, '"""', ""])


def _imports(session: Session) -> str:
    more = ["no_grad"] if session.learner.changes else []
    lines = [
        "import numpy as np",
        "",
        f"from tensorgrad import {', '.join(['Tensor', 'nn', *more, 'optim', 'random'])}",
        "from tensorgrad.data import DataLoader, TensorDataset",
    ]
    if session.settings.data != "csv":
        lines.append("from tensorgrad.playground import from_fragment, make_data")
    return "\n".join([*lines, "from tensorgrad.training import Trainer"]) + "\n"


def _data(session: Session) -> str:
    settings, data = session.settings, session.data
    batch = min(settings.batch, max(len(data.points), 1))
    lines = ["", "# Points of the plane [n, 2] and their labels, to train and to test with."]
    names = ("points", "labels", "test_points", "test_labels")
    if settings.data == "csv":
        lines += [f"{name} = np.array({_rows(getattr(data, name))}, np.float32)" for name in names]
    else:
        lines.append(f'data = make_data(from_fragment("{settings.fragment()}"))')
        lines += [f"{name} = data.{name}" for name in names]
    columns = ", ".join(_FEATURES[name] for name in settings.features)
    target = "labels.astype(np.int64)" if data.classes > 2 else "labels[:, None]"
    lines += [
        "",
        "",
        "def features(points):",
        "    x, y = points[:, 0], points[:, 1]",
        f"    return np.stack([{columns}], axis=1).astype(np.float32)",
        "",
        "",
        "def targets(labels):",
        f"    return {target}",
        "",
        "",
        "train = TensorDataset(features(points), targets(labels))",
        f"loader = DataLoader(train, {batch}, shuffle=True, drop_last=True, seed={settings.seed})",
    ]
    return "\n".join(lines) + "\n"


def _rows(values: Any) -> str:
    rows = values.tolist()
    lines = [", ".join(map(str, rows[k : k + 4])) for k in range(0, len(rows), 4)]
    return "[\n    " + ",\n    ".join(lines) + ",\n]" if rows else "np.zeros((0, 2))"


def _model(session: Session) -> str:
    settings, classes = session.settings, session.data.classes
    size, lines = len(settings.features), ["", "model = nn.Sequential("]
    dropout = f"    nn.Dropout({settings.dropout!r}, generator=masks),"
    for units, name in zip(settings.layers, settings.activations()):
        lines += [f"    nn.Linear({size}, {units}),", f"    nn.{ACTIVATIONS[name]}(),"]
        lines += [dropout] if settings.dropout else []
        size = units
    lines.append(f"    nn.Linear({size}, {classes if classes > 2 else 1}),")
    if classes == 2:
        lines.append("    nn.Tanh(),")
    if settings.dropout:
        lines.insert(1, f"masks = random.Generator({settings.init_seed + 1})")
    lines += [
        ")",
        "layers = [layer for layer in model if isinstance(layer, nn.Linear)]",
        f"start = random.Generator({settings.init_seed})",
        "for layer in layers:",
        "    nn.init.uniform_(layer.weight, -0.5, 0.5, generator=start)",
        "    nn.init.constant_(layer.bias, 0.1)",
    ]
    return "\n".join(lines) + "\n"


def _trainer(session: Session) -> str:
    settings, learner = session.settings, session.learner
    rule = OPTIMIZERS[settings.optimizer]
    options = "".join(f", {name}={value!r}" for name, value in rule.options.items())
    first = learner.first
    lines = ["", "", "def loss(output, target):"]
    if session.data.classes > 2:
        lines.append("    return nn.functional.cross_entropy(output, target)")
    else:
        lines.append('    return nn.functional.mse_loss(output, target, "half_mean")')
    lines += ["", ""]
    penalty = ""
    if settings.regularization != "none":
        call = "l1_penalty(weights, 1.0)" if settings.regularization == "l1" else (
            "l2_penalty(weights, 0.5)"
        )  # fmt: skip
        lines += [
            "weights = [layer.weight for layer in layers]",
            f'strength = Tensor({first.regularization_rate!r}, dtype="float32")',
        ]
        penalty = f"    penalty=lambda: nn.functional.{call} * strength,"
    lines += [
        "trainer = Trainer(",
        "    model,",
        f"    optim.{rule.name}(model.parameters(), lr={first.rate!r}{options}),",
        "    loss,",
        *([penalty] if penalty else []),
        "    metrics=(),",
        ")",
    ]
    return "\n".join(lines) + "\n"


def _changes(session: Session) -> str:
    changes = session.learner.changes
    if not changes:
        return ""
    known = session.settings.regularization != "none"
    rows = [f"    {row!r}," for row in changes if known or row[1] != "strength"]
    strength = ['        elif name == "strength":', "            strength.copy_(value)"]
    lines = [
        "",
        "# What was changed by hand: after how many steps, what, to which value.",
        "changes = [", *rows, "]",
        "",
        "",
        "def change(name, value, layer=0, unit=0, place=0):",
        "    with no_grad():",
        '        if name == "rate":',
        "            for group in trainer.optimizer.param_groups:",
        '                group["lr"] = value',
        *(strength if known else []),
        '        elif name == "weight":',
        "            layers[layer].weight[unit, place] = value",
        "        else:",
        "            layers[layer].bias[unit] = value",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _loop(session: Session) -> str:
    changes = bool(session.learner.changes)
    lines = ["", f"steps, done = {session.learner.steps}, 0", "while done < steps:"]
    lines.append("    for batch in loader:")
    if changes:
        lines += [
            "        while changes and changes[0][0] <= done:",
            "            change(*changes.pop(0)[1:])",
        ]
    lines += [
        "        trainer.step(*batch)",
        "        done += 1",
        "        if done == steps:",
        "            break",
    ]
    if changes:
        lines += ["for row in changes:  # after the last step", "    change(*row[1:])"]
    return "\n".join(lines) + "\n"


_END = """
model.eval()
for name, some, marks in (("training", points, labels), ("test", test_points, test_labels)):
    if len(some):
        value = loss(model(Tensor(features(some))), Tensor(targets(marks))).item()
        print(f"{name} loss {value!r}")
nn.save_safetensors(model, "weights.safetensors")
"""


def weights_safetensors(session: Session) -> bytes:
    """The weights under their names in the script's model, and the settings as metadata."""
    state = session.learner.model.state_dict()
    arrays = {name: value.detach().numpy().copy() for name, value in state.items()}
    return safetensors.numpy.save(arrays, {"fragment": session.settings.fragment()})


def weights_json(session: Session) -> str:
    """Weights [unit][input] and biases by layer, with all digits; null where not finite."""
    from tensorgrad.playground.pictures import finite_list

    names = (*session.settings.activations(), "tanh" if session.data.classes == 2 else "linear")
    layers = [
        {
            "weights": finite_list(layer.weight.tolist()),
            "biases": finite_list(layer.bias.tolist()),  # type: ignore[union-attr]
            "activation": name,
        }
        for layer, name in zip(session.learner.linears(), names)
    ]
    content = {
        "fragment": session.settings.fragment(),
        "features": list(session.settings.features),
        "classes": session.data.classes,
        "steps": session.learner.steps,
        "layers": layers,
    }
    return json.dumps(content, indent=1, allow_nan=False)
