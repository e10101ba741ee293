"""The comparison: plan the arms within a budget, run each in its own process, pick one by a stated rule."""
