"""Draws the pictures of how-it-works.md, in this folder: `python docs/pictures/draw.py`.

The loss curve is of a real training: half a minute on the names of all Unicode
characters, a text that every Python installation carries.
"""

from __future__ import annotations

import sys
import tempfile
import unicodedata
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from app.jobs.training_run import Wishes, plan

HERE = Path(__file__).parent
SECONDS = 30.0
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#4a5568"


def box(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    shape = FancyBboxPatch(
        (x - 0.5, y - 0.2), 1.0, 0.4, boxstyle="round,pad=0.03", fc="white", ec=colour, lw=1.6
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=9)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.4})


def unrolled() -> None:
    """The network reading ``emma``, one copy of it for each time step."""
    steps = [("⊢", "e"), ("e", "m"), ("m", "m"), ("m", "a"), ("a", "⊣")]
    _, axes = plt.subplots(figsize=(9, 4))
    for place, (read, foretold) in enumerate(steps):
        x = place * 1.6
        axes.text(x, -0.35, read, ha="center", fontsize=16, color=GREY)
        axes.text(x, 2.75, foretold, ha="center", fontsize=16, color=GREY)
        box(axes, x, 0.5, "embedding", GREY)
        box(axes, x, 1.2, f"cell, $h_{place + 1}$", BLUE)
        box(axes, x, 1.95, "output", ORANGE)
        for low, high in ((-0.12, 0.25), (0.74, 0.96), (1.44, 1.71), (2.19, 2.65)):
            arrow(axes, (x, low), (x, high), GREY)
        if place:
            arrow(axes, (x - 1.05, 1.2), (x - 0.55, 1.2), BLUE)
    arrow(axes, (-1.0, 1.2), (-0.55, 1.2), BLUE)
    axes.text(-1.05, 1.2, "$h_0 = 0$", ha="right", va="center", color=BLUE, fontsize=11)
    axes.text(7.6, -0.3, "what is read", va="center", color=GREY, fontsize=10)
    axes.text(7.6, 2.82, "what it should foretell", va="center", color=GREY, fontsize=10)
    axes.text(7.6, 1.2, "the same weights\nat every step", va="center", color=BLUE, fontsize=10)
    axes.set(xlim=(-1.9, 9.4), ylim=(-0.6, 3.1))
    axes.axis("off")
    save("unrolled")


def loss_curve() -> None:
    """Loss in training and validation over the steps of a real run."""
    names = (unicodedata.name(chr(point), "") for point in range(sys.maxunicode + 1))
    # The tens of thousands of ideographs have numbers for names.
    text = "\n".join(name for name in names if name and "-" not in name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unicode.txt"
        path.write_text(text.lower())
        run = plan(path, Wishes(format="lines", training={"budget_seconds": SECONDS}))
        progress = list(run.train())
    steps = [each.step for each in progress]
    train, smooth = [each.train_loss for each in progress], []
    for loss in train:
        smooth.append(loss if not smooth else 0.95 * smooth[-1] + 0.05 * loss)
    measured = [(each.step, each.validation.nats) for each in progress if each.validation]
    _, axes = plt.subplots(figsize=(9, 4))
    axes.plot(steps, train, color=BLUE, alpha=0.25, lw=0.8, label="training, each step")
    axes.plot(steps, smooth, color=BLUE, lw=1.8, label="training, smoothed")
    axes.plot(*zip(*measured, strict=True), "o-", color=ORANGE, lw=1.8, label="validation")
    shape = run.network_config
    axes.set_title(
        f"{shape.cell} {shape.layers} × {shape.hidden_size} on {len(text):,} characters of "
        f"Unicode names, {SECONDS:.0f} s",
        fontsize=11,
        color=GREY,
    )
    axes.set(xlabel="step", ylabel="nats a character", ylim=(0, max(train) * 1.05))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save("loss-curve")


def save(name: str) -> None:
    path = HERE / f"{name}.svg"
    plt.savefig(path, bbox_inches="tight", facecolor="white", metadata={"Date": None})
    plt.close()


if __name__ == "__main__":
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "charloom"
    unrolled()
    loss_curve()
