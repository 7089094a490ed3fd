"""Batches in an order that follows from a seed and the epoch, so that a pass resumes at any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from spatialsig.errors import InputError


class ResumableOrder(ABC):
    """Epoch and position within it, kept as a few numbers.

    Attributes
    ----------
    epoch
        Current pass; the seed and it decide the order.
    """

    epoch: int
    _position: int = 0  # batches handed out in this pass
    _start: int = 0  # batch that the next pass begins at

    @abstractmethod
    def __len__(self) -> int:
        """Batches per epoch, of this process."""

    @abstractmethod
    def order_facts(self) -> dict[str, int]:
        """Everything that the order depends on, besides the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass, which begins at its first batch unless this is the epoch being resumed."""
        if epoch != self.epoch:
            self._position = self._start = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Where this pass stands, after the batch handed out last."""
        done = self._position == len(self)
        return self.order_facts() | {"epoch": self.epoch + done, "position": 0 if done else self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass begin where :meth:`state_dict` was taken; it continues exactly as that one would have.

        Raises
        ------
        InputError
            If the state is that of other data, or of another order.
        """
        changed = {name: (state.get(name), own) for name, own in self.order_facts().items() if state.get(name) != own}
        if changed:
            told = ", ".join(f"`{name}` {was} then, {own} now" for name, (was, own) in changed.items())
            msg = f"the batches cannot go on where they stood: {told}. Make them with the same arguments."
            raise InputError(msg)
        self.epoch, self._start = state["epoch"], state["position"]
        self._position = self._start

    def begin_pass(self) -> int:
        """Number of the batch that this pass begins at; the next one begins at its first."""
        self._position, self._start = self._start, 0
        return self._position
