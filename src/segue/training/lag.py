"""The policy lag: how many live steps were told between the data that a policy was made of and what it did.

While environments do not wait for each other, an action may be old when its step arrives. The bound holds because the
steps that are under way are told in time: where one of them is due, the others wait for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


class Lag:
    """Keeps the lag of every transition at or below a bound.

    Of each step under way it knows how much data the policy knew that chose its action: that of so many live steps.

    Args:
        most: largest lag.
        total: steps that are told in all; no more are begun.
    """

    def __init__(self, most: int, total: int) -> None:
        self.most, self.total = most, total
        self.under_way: dict[int, int] = {}

    def room(self, step: int, known: int) -> int:
        """How many more steps may begin after `step` were told, with a policy that knows the data of the `known` first
        ones.
        """
        return max(min(known + self.most + 1, self.total) - step - len(self.under_way), 0)

    def begin(self, slots: Collection[int], known: int) -> None:
        """Steps of these environments are under way."""
        self.under_way.update(dict.fromkeys(slots, known))

    def next(self, step: int) -> list[int]:
        """Environments whose step may be told next, the most urgent first."""
        urgent = sorted(self.under_way, key=lambda slot: self.under_way[slot])
        for place, slot in enumerate(urgent):
            if self.under_way[slot] + self.most == step + place:  # told any later, it would be too late
                return urgent[: place + 1]
        return urgent

    def end(self, arrived: Sequence[int], step: int, most: int) -> dict[int, int]:
        """Those of these steps that may be told now, in their order and at most so many, and what each policy knew."""
        told: dict[int, int] = {}
        while len(told) < most:
            slot = next((slot for slot in self.next(step + len(told)) if slot in arrived), None)
            if slot is None:
                break
            told[slot] = self.under_way.pop(slot)
        return told
