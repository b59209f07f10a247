"""The buffer of keys and values that a batch's rows share, which the graph reads and extends in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mu_llama.engine.onnx.description import GraphDescription
from mu_llama.engine.onnx.weights import stored_head_width

FIRST_POSITIONS = 256
"""Room of a row at first; it is doubled whenever a row needs more."""


class KeyValueBuffer:
    """Slots for the keys and values of rows; grows in steps.

    Binding an array to a graph takes a microsecond, and there are two for each layer: they are bound once for each
    run of slots, until the buffer grows, and only their contents change.

    Args:
        session: of the graph.
        description: of the graph.
        max_slots: how many slots there may be.
    """

    def __init__(self, session: Any, description: GraphDescription, *, max_slots: int) -> None:
        self._session, self._sizes, self._max_slots = session, description, max_slots
        self._bindings: dict[tuple[int, int], Any] = {}
        self._values = self._allocate(0, 0)

    @property
    def size_bytes(self) -> int:
        """Size of the buffer; memory is used only where something was written."""
        return self._values.nbytes

    def grow(self, num_positions: int, *, lengths: Iterable[tuple[int, int]], num_slots: int) -> None:
        """Make room.

        Args:
            num_positions: that a slot needs.
            lengths: slot and number of positions of each row, which are kept.
            num_slots: how many are needed.
        """
        slots, room = self._values.shape[2], self._values.shape[4]
        if slots >= num_slots and room >= num_positions:
            return
        while slots < num_slots:
            slots = min(max(1, 2 * slots), self._max_slots)
        while room < num_positions:
            room = min(max(FIRST_POSITIONS, 2 * room), self._sizes.max_positions)
        old, values = self._values, self._allocate(slots, room)
        for slot, length in lengths:
            if length:
                values[:, :, slot, :, :length] = old[:, :, slot, :, :length]
        self._values = values
        self._bindings.clear()

    def release(self) -> None:
        """Give back what a long text or many rows made it grow by; all slots are empty."""
        if self._values.shape[4] > FIRST_POSITIONS or self._values.shape[2] > 1:
            self._values = self._allocate(0, 0)
            self._bindings.clear()

    def read(self, slot: int, start: int, stop: int) -> NDArray[np.float32]:
        """Copy some positions of a slot: (layers, 2, KV heads, positions, head width)."""
        return self._values[:, :, slot, :, start:stop].copy()

    def write(self, slot: int, start: int, values: NDArray[np.float32]) -> None:
        """Put what `read` gave into a slot, from position `start` on."""
        self._values[:, :, slot, :, start : start + values.shape[3]] = values

    def move(self, source: int, target: int, *, length: int) -> None:
        """Copy the first positions of a slot to another one."""
        if length:
            self._values[:, :, target, :, :length] = self._values[:, :, source, :, :length]

    def exchange(self, one: int, other: int, *, length: int) -> None:
        """Exchange the first positions of two slots."""
        values = self.read(one, 0, length)
        self.move(other, one, length=length)
        self.write(other, 0, values)

    def binding(self, first: int, num_slots: int) -> Any:
        """An `IOBinding` with keys and values of some slots, each as input and output at once."""
        binding = self._bindings.get((first, num_slots))
        if binding is None:
            binding = self._bindings[first, num_slots] = self._session.io_binding()
            for layer in range(self._sizes.num_layers):
                for index, part in enumerate(("key", "value")):
                    values = self._values[layer, index, first : first + num_slots]
                    place = ("cpu", 0, np.float32, values.shape, values.ctypes.data)
                    binding.bind_input(f"past_{part}_{layer}", *place)
                    binding.bind_output(f"present_{part}_{layer}", *place)
        return binding

    def _allocate(self, num_slots: int, num_positions: int) -> NDArray[np.float32]:
        """(layers, 2, slots, KV heads, positions, head width)."""
        sizes = self._sizes
        width = stored_head_width(sizes.head_width)
        shape = (sizes.num_layers, 2, num_slots, sizes.num_key_value_heads, num_positions, width)
        return np.zeros(shape, np.float32)
