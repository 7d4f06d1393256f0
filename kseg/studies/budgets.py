"""Equal budgets: the steps that each contestant may train, and what rounding to whole steps leaves."""

import dataclasses
from typing import Any

from kseg.io.errors import InputError
from kseg.io.text import count_text

UNEQUAL = 1.25  # the most CPU seconds of a contestant by the fewest, up to which a budget of them counts as kept
TRAINING = 3  # multiply-adds of a training step by those of the forward pass: forward, gradients of maps, of kernels


@dataclasses.dataclass(frozen=True)
class Share:
    """What a contestant gets of a budget: its steps and images, what they spend, and what rounding left."""

    steps: int
    images: int
    spent: float
    left: float

    def text(self, limit: Any) -> str:
        """Return the share as a sentence. limit: Limit."""
        steps = f"{count_text(self.steps, 'step')}, {count_text(self.images, 'image')}"
        return (
            f"{steps}: {self.spent:.6g} of {limit.value:.6g} {limit.kind}, {self.left:.3g} left by rounding "
            f"({self.left / limit.value:.2%})"
        )


def share_of(limit, facts, name):
    """Return the Share of a contestant: as many whole steps as the budget pays for, never more.

    Args:
        limit: Limit. facts: of the contestant, whole numbers batch_size and multiply_adds (of one image, forward), and
            for seconds the measured seconds_per_step. name: for the message.
    Raises:
        InputError: the budget does not pay for one step.
    """
    batch = facts["batch_size"]
    if limit.kind == "multiply-adds":
        of_step = TRAINING * facts["multiply_adds"] * batch
    elif limit.kind == "images":
        of_step = batch
    else:
        of_step = facts["seconds_per_step"]
    steps = int(limit.value // of_step)
    if steps < 1:
        raise InputError(
            f"The budget of {limit.value:g} {limit.kind} must pay for one step at least, but a step of {name} takes "
            f"{of_step:g}. Raise the budget, or make the batch or the model smaller."
        )
    spent = steps * of_step
    return Share(steps, steps * batch, spent, limit.value - spent)


def seconds_note(limit, costs):
    """Return what a study of a budget of seconds has to say of what its runs took; "" for another budget.

    Args:
        limit: {kind, value} of the plan. costs: of each contestant on each data set, its model, data and cpu_seconds
            (of the whole process, the mean of its runs).
    """
    if limit["kind"] == "gpu-seconds":
        return "A pilot turned the budget into steps. What the runs took of the GPU was not measured."
    if limit["kind"] != "seconds" or not costs:
        return ""
    several = len({row["data"] for row in costs}) > 1
    took = {
        row["model"] + (f" on {row['data']}" if several else ""): row["cpu_seconds"] / limit["value"] for row in costs
    }
    least, most = min(took, key=took.get), max(took, key=took.get)
    note = (
        "A pilot turned the budget into steps. With start, scoring and export a run took "
        f"{_times(took[least], took[most])} the budget in CPU seconds."
    )
    if took[most] > UNEQUAL * took[least]:
        note += (
            f" The budgets were not equal: {most} took {took[most]:.2f} times the budget and {least} "
            f"{took[least]:.2f} times. A pilot measures wrongly where other work shares the cores, and runs on "
            "different machines differ."
        )
    return note


def _times(least, most):
    if f"{least:.2f}" == f"{most:.2f}":
        return f"{least:.2f} times"
    return f"{least:.2f} to {most:.2f} times"
