"""Labels for what was chosen for a training, and why.

Takes the fields that were chosen together, and the values of network and training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel

from ..charlm.sizing import Chosen
from ..training.planning import TrainingPlan

Values = Mapping[str, Any]

_LABELS: Final[Mapping[tuple[str, ...], tuple[str, Callable[[Values], str]]]] = {
    ("layers", "hidden_size"): (
        "network",
        lambda v: f"{v['cell']} {v['layers']} × {v['hidden_size']}",
    ),
    ("embedding_size",): ("embedding", lambda v: str(v["embedding_size"])),
    ("dropout",): ("dropout", lambda v: f"{v['dropout']:g}"),
    ("batch_size", "window"): ("rows × window", lambda v: f"{v['batch_size']} × {v['window']}"),
    ("learning_rate",): ("learning rate", lambda v: f"{v['learning_rate']:g}"),
}


class ChoiceAnswer(BaseModel):
    name: str
    value: str
    reason: str


def choice_objects(chosen: Iterable[Chosen], values: Values) -> list[dict[str, str]]:
    """Name, value and reason of each choice; ``values`` are the fields of network and training."""
    return [{**_labelled(each, values), "reason": each.reason} for each in chosen]


def plan_choices(plan: TrainingPlan) -> list[dict[str, str]]:
    """Name, value and reason of every value of a plan that was chosen, asked for or inherited."""
    asked = (Chosen((name,), "as asked") for name in plan.asked)
    inherited = (Chosen((name,), "from the base model") for name in plan.inherited)
    return choice_objects((*plan.chosen, *asked, *inherited), plan.values)


def choice_line(choice: Mapping[str, str]) -> str:
    """A choice as a line for the terminal."""
    return f"  {choice['name']:<14} {choice['value']:<18} {choice['reason']}"


def _labelled(chosen: Chosen, values: Values) -> dict[str, str]:
    known = _LABELS.get(chosen.fields)
    if known is not None:
        name, show = known
        return {"name": name, "value": show(values)}
    return {
        "name": ", ".join(field.replace("_", " ") for field in chosen.fields),
        "value": ", ".join(str(values[field]) for field in chosen.fields),
    }
