"""Draw the pictures of how-it-works.md, in this folder.

`python docs/pictures/draw.py` draws them from the curve stored beside it.
`python docs/pictures/draw.py --train` first trains for a minute to measure a new
loss curve. It trains on the names of all Unicode characters, a text that every
Python installation includes. The background is white, so that the pictures are
readable on any page.
"""

from __future__ import annotations

import json
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
CURVE: Final = HERE / "loss-curve.json"
SECONDS: Final = 60.0
POINTS: Final = 150
BLUE, ORANGE, GREY, PALE = "#2b6cb0", "#c05621", "#4a5568", "#d5dbe3"

Point = tuple[float, float]


class Picture:
    """An SVG being drawn; coordinates in pixels from the upper left corner."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" '
            'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, '
            'DejaVu Sans, sans-serif">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        ]

    def text(
        self, at: Point, text: str, colour: str, size: int = 14, anchor: str = "middle"
    ) -> None:
        self._parts.append(
            f'<text x="{at[0]:g}" y="{at[1]:g}" fill="{colour}" font-size="{size}" '
            f'text-anchor="{anchor}" dominant-baseline="central">{text}</text>'
        )

    def box(self, at: Point, text: str, colour: str) -> None:
        """A box with its centre at ``at``."""
        self._parts.append(
            f'<rect x="{at[0] - 46:g}" y="{at[1] - 18:g}" width="92" height="36" rx="5" '
            f'fill="none" stroke="{colour}" stroke-width="1.8"/>'
        )
        self.text(at, text, colour)

    def line(self, points: Sequence[Point], colour: str, width: float = 1.5) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" '
            'stroke-linejoin="round"/>'
        )

    def arrow(self, start: Point, end: Point, colour: str) -> None:
        """A straight line to the right or upwards, with an arrowhead at its end."""
        x, y = end
        up = start[0] == end[0]
        wings = (
            [(x - 5, y + 7), end, (x + 5, y + 7)] if up else [(x - 7, y - 5), end, (x - 7, y + 5)]
        )
        self.line([start, end], colour)
        self.line(wings, colour)

    def dot(self, at: Point, colour: str) -> None:
        self._parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="3.5" fill="{colour}"/>')

    def save(self, name: str) -> None:
        (HERE / f"{name}.svg").write_text("\n".join([*self._parts, "</svg>"]) + "\n")


def unrolled() -> None:
    """The network reading ``emma``, one copy of it for each time step."""
    picture = Picture(860, 330, "The network unrolled over the name emma")
    steps = [("boundary", "e"), ("e", "m"), ("m", "m"), ("m", "a"), ("a", "boundary")]
    for place, (read, predicted) in enumerate(steps):
        x = 140 + place * 128
        for y, shown in ((296, read), (34, predicted)):
            picture.text((x, y), shown, GREY, 22 if len(shown) == 1 else 14)
        picture.box((x, 234), "embedding", GREY)
        picture.box((x, 164), f"cell: h{chr(0x2080 + place + 1)}", BLUE)
        picture.box((x, 94), "output", ORANGE)
        for low, high in ((280, 255), (214, 185), (144, 115), (74, 50)):
            picture.arrow((x, low), (x, high), GREY)
        picture.arrow((x - 80, 164), (x - 49, 164), BLUE)
    picture.text((32, 164), "h₀ = 0", BLUE)
    picture.text((718, 296), "what is read", GREY, anchor="start")
    picture.text((718, 26), "what it should", GREY, anchor="start")
    picture.text((718, 44), "predict", GREY, anchor="start")
    picture.text((718, 155), "the same weights", BLUE, anchor="start")
    picture.text((718, 173), "at every step", BLUE, anchor="start")
    picture.save("unrolled")


def loss_curve() -> None:
    """Loss in training and validation over the steps of a real training."""
    run: dict[str, Any] = json.loads(CURVE.read_text())
    picture = Picture(860, 400, "Loss in training and validation")
    left, right, top, bottom = 70, 830, 56, 340
    most = run["steps"]
    highest = max(nats for _, nats in run["training"])

    def place(step: float, nats: float) -> Point:
        return left + (right - left) * step / most, bottom - (bottom - top) * nats / highest

    picture.text(
        (left, 26),
        f"{run['network']}, {run['seconds']:g} seconds on {run['characters']:,} characters "
        "of Unicode names",
        GREY,
        15,
        "start",
    )
    for nats in range(int(highest) + 1):
        y = place(0, nats)[1]
        picture.line([(left, y), (right, y)], PALE if nats else GREY, 1)
        picture.text((left - 12, y), str(nats), GREY, 13, "end")
    every = 10 ** (len(str(most)) - 1)
    every = next(size for size in (every // 5, every // 2, every) if most / size <= 8)
    for step in range(0, most + 1, every):
        picture.text((place(step, 0)[0], bottom + 18), f"{step:,}", GREY, 13)
    picture.text((right, bottom + 42), "step", GREY, 13, "end")
    picture.text((left, top - 8), "nats per character", GREY, 13, "start")
    picture.line([place(*point) for point in run["training"]], BLUE, 1.8)
    validation = [place(*point) for point in run["validation"]]
    picture.line(validation, ORANGE, 2)
    for at in validation:
        picture.dot(at, ORANGE)
    for y, colour, label in (
        (130, BLUE, "training: the mean of neighbouring steps"),
        (156, ORANGE, "validation: lines not trained on"),
    ):
        picture.line([(470, y), (498, y)], colour, 2.4)
        picture.text((508, y), label, colour, 14, "start")
    picture.save("loss-curve")


def train() -> None:
    """Train, and store the curve."""
    # Not needed to draw.
    import torch

    from app.training.machine import machine_speed
    from app.training.planning import Wishes, plan_training
    from app.training.prepare import prepare
    from app.training.trainer import Trainer

    names = (unicodedata.name(chr(point), "") for point in range(sys.maxunicode + 1))
    # The names of tens of thousands of ideographs are only numbers.
    text = "\n".join(name for name in names if name and "-" not in name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unicode.txt"
        path.write_text(text.lower())
        prepared = prepare(path, format="lines")
        wishes = Wishes(training={"budget_seconds": SECONDS})
        plan = plan_training(prepared.profile, wishes, speed=machine_speed(torch.get_num_threads()))
        progress = list(Trainer(prepared, plan).train())
    losses = [each.train_loss for each in progress]
    ends = [round(part * len(losses) / POINTS) for part in range(POINTS + 1)]
    training = [
        [(first + last + 1) / 2, round(sum(losses[first:last]) / (last - first), 4)]
        for first, last in pairwise(ends)
        if last > first
    ]
    shape = plan.network
    curve = {
        "command": "python docs/pictures/draw.py --train",
        "network": f"{shape.cell} {shape.layers} × {shape.hidden_size}",
        "seconds": SECONDS,
        "characters": len(text),
        "steps": len(losses),
        "training": training,
        "validation": [
            [each.step, round(each.validation.nats, 4)] for each in progress if each.validation
        ],
    }
    CURVE.write_text(json.dumps(curve, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if "--train" in sys.argv[1:]:
        train()
    unrolled()
    loss_curve()
