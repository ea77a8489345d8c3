"""A bounded amount of something, reserved before it is used and given back after.

Used on the event loop only. Knows neither requests nor answers.
"""

from __future__ import annotations

from typing import Self


class Room:
    """``limit`` units in all: bytes, or numbers of answers."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def reserve(self, units: int) -> Reservation | None:
        """``units`` units until they are released; None if they are not free now."""
        if self.used + units > self.limit:
            return None
        self.used += units
        return Reservation(self, units)


class Reservation:
    """Some units of a room; also a context manager."""

    def __init__(self, room: Room, units: int) -> None:
        self._room = room
        self._units = units

    def handed_on(self) -> Reservation:
        """The same units for another owner; releasing this one does nothing any more."""
        units, self._units = self._units, 0
        return Reservation(self._room, units)

    def release(self) -> None:
        """Give the units back; a second call does nothing."""
        self._room.used -= self._units
        self._units = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
