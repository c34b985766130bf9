"""What a drill makes of the answers that came."""

from __future__ import annotations

from tools.drills import away
from tools.load import Answer, Request

POST, GET = Request("POST", "/api/reports"), Request("GET", "/api/reports")


def answer(due: float, seconds: float = 0.1, *, status: int = 202, kept_alive: bool = False, request: Request = POST) -> Answer:
    return Answer(0, due, seconds, request, kept_alive, status)


def test_the_longest_time_without_a_success_counts() -> None:
    """Catches failures, reads, old connections and late answers that are taken for a write that came through."""
    answers = [answer(1), answer(2, status=503), answer(3, request=GET), answer(4, kept_alive=True), answer(5, seconds=3), answer(9)]
    assert round(away(answers, "POST", 0, 10), 1) == 6.9
    assert round(away(answers, "GET", 0, 10), 1) == 6.9


def test_an_outage_to_the_end_counts() -> None:
    """Catches a drill in which nothing comes back, and which looks short for it."""
    assert away([answer(1)], "POST", 0, 30) == 28.9
