"""The direction of an objective: the only module that decides whether a higher or a lower value is better."""

from typing import Literal

Direction = Literal["maximize", "minimize"]


def higher_is_better(direction: Direction) -> bool:
    """Return whether a higher value is the better one."""
    return direction == "maximize"


def loss_sign(direction: Direction) -> float:
    """Return the factor, 1 or -1, that turns a value into a loss: of `loss_sign(direction) * value` less is better."""
    return -1.0 if higher_is_better(direction) else 1.0
