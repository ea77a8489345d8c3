"""Memory, threads and descriptors of the server, each second: a table, a picture, flatness."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MEASURED: Final = {
    "megabytes": "resident memory, MB",
    "threads": "threads",
    "descriptors": "descriptors",
}


@dataclass(frozen=True)
class Sample:
    """One second of one process; ``seconds`` is since the start of the run."""

    seconds: float
    process: int
    megabytes: float
    threads: int
    descriptors: int
    answers: int


def sample(pid: int, *, seconds: float, process: int, answers: int) -> Sample | None:
    """The process as it is now, None if it is gone."""
    own = Path(f"/proc/{pid}")
    try:
        pages = int((own / "statm").read_text().split()[1])
        threads = len(list((own / "task").iterdir()))
        descriptors = len(list((own / "fd").iterdir()))
    except OSError:
        return None
    return Sample(seconds, process, pages * _PAGE / 1e6, threads, descriptors, answers)


@dataclass(frozen=True)
class Flatness:
    """How one figure of one process moved."""

    second_quarter: float  # its largest there
    last_quarter: float
    slope: float  # per minute, over the second half

    @classmethod
    def of(cls, moments: Sequence[float], values: Sequence[float]) -> Flatness:
        """From at least eight samples; ``moments`` in seconds."""
        quarter, half = len(values) // 4, len(values) // 2
        return cls(
            max(values[quarter:half]),
            max(values[-quarter:]),
            60 * _slope(moments[half:], values[half:]),
        )


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line with the least squares."""
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    spread = sum((each - x_mean) ** 2 for each in x)
    both = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return both / spread if spread else 0.0


def write_table(samples: Sequence[Sample], path: Path) -> None:
    """One line a second, separated by tabs."""
    lines = ["\t".join(field.name for field in fields(Sample))]
    lines += ["\t".join(f"{each:.6g}" for each in astuple(one)) for one in samples]
    path.write_text("\n".join(lines) + "\n")


def draw(samples: Sequence[Sample], path: Path) -> None:
    """The three figures over time, each process in its own colour."""
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "charloom", "font.size": 9})
    figure, panels = plt.subplots(3, 1, figsize=(6.4, 5.0), sharex=True)
    for axes, (name, title) in zip(panels, _MEASURED.items(), strict=True):
        for process in sorted({each.process for each in samples}):
            own = [each for each in samples if each.process == process]
            axes.plot([s.seconds / 60 for s in own], [getattr(s, name) for s in own], linewidth=1)
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("minutes; a new colour is a new process")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
