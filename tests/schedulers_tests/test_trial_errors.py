from __future__ import annotations

import pytest

from schedulers import trial_errors
from schedulers.trial_errors import is_exception, told_error

HEAD = "Failure # {} (occurred at 2026-01-02_03-04-05)\n"
ACTOR = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: Model\n\tactor_id: 25dbf290\n\tpid: 7293\n"
)
RAISED = (
    "\x1b[36mray::Model.train()\x1b[39m (pid=7, ip=192.0.2.2, actor_id=25db, repr=<Model>)\n"
    '  File "/usr/lib/python3.11/site-packages/ray/tune/trainable/trainable.py", line 331, in train\n'
    "    result = self.step()\n"
    "             ^^^^^^^^^^^\n"
    f'  File "{trial_errors._HOME}/trainables/superkernel.py", line 47, in forward\n'
    "    y = self.candidates[column](x)\n"
    '  File "/home/me/mine.py", line 13, in forward\n'
    "    return helper(x)\n"
    '  File "/usr/lib/python3.11/site-packages/torch/nn/modules/conv.py", line 9, in forward\n'
    "    raise what\n"
)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("ValueError: no such kernel\n", "ValueError: no such kernel"),
        ("KeyError: 'x'\n", "KeyError: 'x'"),
        ("mine.errors.Odd: first line\nsecond: line\n\n  third\n", "mine.errors.Odd: first line second: line third"),
        ("AssertionError\n", "AssertionError"),
    ],
)
def test_an_exception_is_told_with_its_type_its_message_and_the_users_line(error: str, told: str) -> None:
    text = HEAD.format(1) + RAISED + error
    assert is_exception(text)
    assert told_error(text) == f"{told} (/home/me/mine.py:13, in forward)"


def test_the_users_file_is_named_from_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathlib.Path.cwd", classmethod(lambda cls: cls("/home/me")))
    assert told_error(RAISED + "OSError: gone") == "OSError: gone (mine.py:13, in forward)"


def test_without_a_line_of_the_users_no_place_is_named() -> None:
    text = RAISED.replace("/home/me/mine.py", "/usr/lib/python3.11/site-packages/mine.py") + "OSError: gone"
    assert told_error(text) == "OSError: gone"


def test_of_several_errors_and_of_a_chain_the_last_one_counts() -> None:
    chain = "KeyError: 'x'\n\nThe above exception was the direct cause of the following exception:\n\n"
    killed = ACTOR + "connection error code 2\n"
    text = HEAD.format(1) + killed + HEAD.format(2) + RAISED + chain + RAISED + "ValueError: y"
    assert told_error(text).startswith("ValueError: y (")
    assert is_exception(text)
    assert not is_exception(text + "\n" + HEAD.format(3) + killed)


def test_a_set_up_that_raised_is_an_exception() -> None:
    text = (
        "The actor died because of an error raised in its creation task, " + RAISED + "RuntimeError: there is no data"
    )
    assert is_exception(text)
    assert told_error(text).startswith("RuntimeError: there is no data (/home/me")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
            "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: ...",
            "its process died without an exception: killed (SIGKILL), out of memory, or crashed in native code",
        ),
        (
            "The actor is dead because it was killed by `ray.kill`.",
            "its process was killed: its grant or the sweep's deadline was over",
        ),
        (
            "Task was killed due to the node running low on memory.\nMemory on the node was 7.6GB / 8GB (0.95).",
            "Ray killed its process: its node was running out of memory",
        ),
        ("The actor died because its node has died. Node Id: ab12.", "its node has died"),
        (
            "The actor is dead because its worker process has died. Worker exit type: INTENDED_USER_EXIT Worker exit "
            "detail: Worker exits by calling sys.exit().",
            "its process died: Worker exits by calling sys.exit()",
        ),
        ("something new", "something new"),
    ],
)
def test_a_death_is_told_in_plain_words(said: str, told: str) -> None:
    text = HEAD.format(1) + ACTOR + said + "\n"
    assert told_error(text) == told
    assert not is_exception(text)


def test_nothing_is_known_without_a_text_and_a_long_one_is_cut() -> None:
    assert told_error("") == "its process died"
    told = told_error(RAISED + "ValueError: " + "x" * 5000)
    assert told.endswith("... (/home/me/mine.py:13, in forward)")
    assert len(told) < 300
