"""What a defence did, as numbers: added up while a run goes on, told once an epoch."""

from __future__ import annotations

__all__ = ["Facts"]


class Facts:
    """Means of what was measured and sums of what was counted.

    Args:
        table: Where to keep them: by name, the sum of what was added and the weight it had.
    """

    def __init__(self, table: dict[str, list[float]] | None = None) -> None:
        self._table: dict[str, list[float]] = {} if table is None else table

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        """Add one measurement; told is the mean over the epoch."""
        found = self._table.setdefault(name, [0.0, 0.0])
        found[0] += value * weight
        found[1] += weight

    def count(self, name: str, number: float = 1.0) -> None:
        """Add to a count; told is the sum over the epoch."""
        self._table.setdefault(name, [0.0, 0.0])[0] += number

    def read(self) -> dict[str, float]:
        """Return means and counts by name."""
        return {name: total / weight if weight else total for name, (total, weight) in self._table.items()}

    def clear(self) -> None:
        """Forget them."""
        self._table.clear()
