"""What was chosen, as labels: made from fields and values, so that no renamed label is lost."""

from __future__ import annotations

from app.charlm.sizing import Chosen, CorpusFacts, choose
from app.rendering.choices import choice_line, choice_objects
from app.training.planning import TrainingPlan

FACTS = CorpusFacts("lines", 200_000, 28, 7.1, 10)


def test_every_choice_has_a_label_and_its_value() -> None:
    choice = choose(FACTS, 180.0, 1e10)
    plan = TrainingPlan(choice.network, choice.training, choice.chosen)
    shown = {each["name"]: each["value"] for each in choice_objects(plan.chosen, plan.values)}
    training, network = plan.training, plan.network
    assert shown == {
        "network": f"lstm 1 × {network.hidden_size}",
        "embedding": "64",
        "dropout": f"{network.dropout:g}",
        "rows × window": f"{training.batch_size} × {training.window}",
        "learning rate": f"{training.learning_rate:g}",
    }


def test_fields_without_a_label_of_their_own_are_named() -> None:
    (shown,) = choice_objects([Chosen(("max_steps",), "as asked")], {"max_steps": 7})
    assert shown == {"name": "max steps", "value": "7", "reason": "as asked"}
    assert choice_line(shown).split() == ["max", "steps", "7", "as", "asked"]
