"""For the report: examples taken for another class, and predicted numbers beside the right."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np

from tensorgrad.autograd.modes import no_grad
from tensorgrad.cli.build import Run
from tensorgrad.cli.data import Data
from tensorgrad.cli.terminal import printable
from tensorgrad.cli.train import loader_of
from tensorgrad.nn.functional import softmax
from tensorgrad.tensor import Tensor

Array = np.ndarray[Any, Any]
_MOST = 24  # examples that are shown
_MOST_COLUMNS = 12
_MOST_POINTS = 2000
_SIDE, _MARGIN = 360, 40  # of the plot, in pixels


def outputs_of(run: Run, data: Data) -> tuple[Array, Array, Array]:
    """Of the examples to test with: inputs as they are kept, targets, what the network gives."""
    prepare = run.problem.prepare()
    parts = []
    with no_grad():
        for x, t in loader_of(data.test, {**run.settings, "device": "cpu"}):
            parts.append((x.numpy(), t.numpy(), run.model(prepare(x)).numpy()))
    inputs, targets, outputs = (np.concatenate(part) for part in zip(*parts))
    return inputs, targets, outputs


def mistakes(run: Run, data: Data, png: Callable[[Array], bytes]) -> str:
    """The test examples that are taken for another class, those first of which it is surest."""
    classes = run.problem.classes
    if classes is None:
        return ""
    inputs, targets, scores = outputs_of(run, data)
    guessed = scores.argmax(1)
    if run.settings["loss"] == "cross-entropy":
        scores = softmax(Tensor(scores)).numpy()
    wrong = np.flatnonzero(guessed != targets)
    wrong = wrong[np.argsort(-scores[wrong, guessed[wrong]], kind="stable")]
    if not len(wrong):
        return f"<p>None of {len(targets):,} test examples.</p>"
    names = [_text(name) for name in classes] + [str(i) for i in range(len(classes), 2)]
    shown = [
        (i, f"{names[int(targets[i])]} as {names[int(guessed[i])]}", float(scores[i, guessed[i]]))
        for i in wrong[:_MOST].tolist()
    ]
    head = f"<p>{len(wrong):,} of {len(targets):,} test examples, the surest mistakes first.</p>"
    if len(run.problem.shape) > 1:
        return head + _pictures(run, inputs, shown, png)
    return head + _rows(run, inputs, shown)


def _pictures(
    run: Run, inputs: Array, shown: list[tuple[int, str, float]], png: Callable[[Array], bytes]
) -> str:
    found = []
    for i, what, sure in shown:
        pixels = inputs[i].reshape(run.problem.shape).astype(np.float64)
        if pixels.ndim == 3:
            pixels = pixels.mean(0 if pixels.shape[0] <= 4 else -1)
        low, high = pixels.min(), pixels.max()
        grey = (255 * (pixels - low) / ((high - low) or 1)).astype(np.uint8)
        found.append(
            f'<figure style="display:inline-block;margin:4px;text-align:center"><img alt="" '
            f'width="84" style="image-rendering:pixelated" src="data:image/png;base64,'
            f'{base64.b64encode(png(np.atleast_2d(grey))).decode()}">'
            f"<figcaption>{what}<br>{sure:.2f}</figcaption></figure>"
        )
    return f"<div>{''.join(found)}</div>"


def _rows(run: Run, inputs: Array, shown: list[tuple[int, str, float]]) -> str:
    problem = run.problem
    columns = problem.input_names[:_MOST_COLUMNS]
    mean, std = np.array(problem.mean), np.array(problem.std)
    cells = "".join(f"<th>{_text(name)}</th>" for name in columns)
    lines = []
    for i, what, sure in shown:
        values = (inputs[i] * std + mean)[: len(columns)]
        numbers = "".join(f"<td>{value:.4g}</td>" for value in values.tolist())
        lines.append(f"<tr><td>{what}</td><td>{sure:.2f}</td>{numbers}</tr>")
    return (
        '<div class="scroll"><table><tr><th>right as predicted</th><th>sure</th>'
        f"{cells}</tr>{''.join(lines)}</table></div>"
    )


def predicted_against_true(run: Run, data: Data) -> str:
    """A point for each test example: right across, predicted up; on the line where it is right."""
    problem = run.problem
    if problem.classes is not None or problem.outputs != 1:
        return ""
    _, targets, outputs = outputs_of(run, data)
    right = problem.given(targets)[:_MOST_POINTS, 0]
    guessed = problem.given(outputs)[:_MOST_POINTS, 0]
    low, high = float(min(right.min(), guessed.min())), float(max(right.max(), guessed.max()))
    scale = _SIDE / ((high - low) or 1)
    total, end = _SIDE + 2 * _MARGIN, _SIDE + _MARGIN
    points = "".join(
        f'<circle cx="{_MARGIN + (x - low) * scale:.1f}" cy="{end - (y - low) * scale:.1f}" r="3" '
        'fill="#1d4ed8" fill-opacity="0.5"/>'
        for x, y in zip(right.tolist(), guessed.tolist())
    )
    return (
        "<p>Across: the right number; up: the predicted one. Test data; on the line both are the "
        f'same.</p><svg viewBox="0 0 {total} {total}" width="{total}" height="{total}">'
        f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}" fill="#f8fafc"/>'
        f'<path d="M{_MARGIN} {end}L{end} {_MARGIN}" stroke="#94a3b8"/>{points}'
        f'<text x="{_MARGIN}" y="{end + 16}" font-size="12">{low:.4g}</text>'
        f'<text x="{end}" y="{end + 16}" font-size="12" text-anchor="end">{high:.4g}</text></svg>'
    )


def _text(value: Any) -> str:
    return escape(printable(str(value)))
