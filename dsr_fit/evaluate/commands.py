"""What `dsr-fit evaluate` can measure; each entry parses its own words, and imports what is heavy when it runs."""

from __future__ import annotations

from collections.abc import Callable

EVALUATIONS: dict[str, Callable[[list[str]], None]] = {}
"""Second word of the command -> what it runs with the words after it."""
