"""docs/bad_input.md is what the command says: each case of its tables is run."""

from __future__ import annotations

import re
from collections.abc import Iterator

import bad_input
import pytest

CASES = [(title, case) for title, cases in bad_input.SECTIONS.items() for case in cases]


def _stable(line: str) -> str:
    """Without what is in brackets, where the words of other packages are."""
    return re.sub(r"\(.*\)", "()", line)


@pytest.fixture(scope="module")
def loaded() -> Iterator[None]:
    with bad_input.loaded_once():
        yield


@pytest.fixture(scope="module")
def sections() -> dict[str, list[str]]:
    _, *parts = bad_input.PAGE.read_text(encoding="utf-8").split("\n## ")
    return {part.splitlines()[0]: [line for line in part.splitlines() if line.startswith("| ")][2:] for part in parts}


@pytest.mark.usefixtures("loaded", "nothing_is_set")
@pytest.mark.parametrize(("title", "case"), CASES, ids=[f"{title}: {case.what}" for title, case in CASES])
def test_the_page_says_what_the_command_says(title: str, case: bad_input.Case, sections: dict[str, list[str]]) -> None:
    """`outcome` itself asserts that nothing is written where the status is not 0."""
    status, said = bad_input.outcome(case)
    assert len(said.splitlines()) <= 1
    committed = sections[title][bad_input.SECTIONS[title].index(case)]
    assert _stable(bad_input.row(case, status, said)) == _stable(committed)


def test_the_page_has_the_cases_and_no_others(sections: dict[str, list[str]]) -> None:
    listed = {title: [line.split(" | ")[0].removeprefix("| ") for line in lines] for title, lines in sections.items()}
    assert listed == {title: [case.what for case in cases] for title, cases in bad_input.SECTIONS.items()}
    assert bad_input.PAGE.read_text(encoding="utf-8").startswith(bad_input.head())
