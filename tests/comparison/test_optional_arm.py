"""The optional method prompt_tuning is left out where the trainings of others on all rows would have no time."""

from dataclasses import replace

from planned import given, measured

from riyaz.comparison import plan as planning


def test_it_leaves_its_time_to_the_refits() -> None:
    inputs = given("nearest", "prompt_tuning", "lora", "full", speeds=measured(), optional=("prompt_tuning",))
    recipes = {
        name: recipe and replace(recipe, refit=name in ("lora", "full")) for name, recipe in inputs.methods.items()
    }
    inputs = replace(inputs, methods=recipes)
    found = set()
    for budget in range(300, 1200, 20):
        plan = planning.make_plan(inputs, budget=float(budget), spent=0.0)
        left_out = bool(plan.arm("prompt_tuning").skipped)
        refits = {arm.method for arm in plan.arms if arm.refit}
        assert left_out or refits == {"lora", "full"}, budget
        found.add((left_out, len(refits)))
        assert bool(plan.arm("prompt_tuning").ruled_out) and not plan.arm("lora").ruled_out, (
            "also where it is cut later"
        )
    assert {(True, 0), (True, 1), (True, 2), (False, 2)} <= found
