"""What a run of Ansible says of its tasks, and whether another one says the same."""

from __future__ import annotations

import pytest

from tools.bench_growth import reported, the_same
from tools.console import Problem

PRINTED = """
PLAY [Serve] *******************************************************************

TASK [nginx : sites | Describe the sites] **************************************
changed: [h1] => (item=shop)
changed: [h1] => (item=blog)
ok: [h2]

RUNNING HANDLER [nginx : main | Reload nginx] **********************************
ok: [h2 -> h1(192.0.2.1)]
fatal: [h1]: FAILED! => changed=false
"""


def test_each_result_counts_once() -> None:
    """Catches items, handlers and delegated tasks that a comparison would not see."""
    assert dict(reported(PRINTED)) == {
        ("nginx : sites | Describe the sites", "h1", "changed"): 2,
        ("nginx : sites | Describe the sites", "h2", "ok"): 1,
        ("nginx : main | Reload nginx", "h2 -> h1(192.0.2.1)", "ok"): 1,
        ("nginx : main | Reload nginx", "h1", "fatal"): 1,
    }


def test_a_difference_is_named() -> None:
    """Catches a run that leaves a task out, changes what the other does not, or says nothing at all."""
    one = reported(PRINTED)
    the_same(one, reported(PRINTED), "a run")
    with pytest.raises(
        Problem, match=r"2 things otherwise with Mitogen:\n\+1 nginx : sites .* / h2 / ok\n-1 nginx : sites .* / h2 / changed"
    ):
        the_same(one, reported(PRINTED.replace("ok: [h2]", "changed: [h2]")), "a run")
    with pytest.raises(Problem):
        the_same(reported(""), reported(""), "a run")
