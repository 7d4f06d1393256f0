"""Equal budgets: the steps that each contestant may train, and what rounding to whole steps leaves."""

import dataclasses
from typing import Any

from kseg.io.errors import InputError
from kseg.io.text import count_text

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
