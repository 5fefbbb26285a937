"""The watch in C: ends a process whose interpreter stands still, and no other."""

import ctypes
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastssd.native.library import function

pytestmark = pytest.mark.kernels

HANGS = """
import ctypes, threading
from fastssd.native.watch import Watch
first = Watch(0.01, "replaced")
watch = Watch(0.1, "the message")
if {closes}:
    watch.close()
    ctypes.CDLL(None).usleep(300_000)
    print("left alone")
else:
    ctypes.PyDLL(None).pause()  # and holds Python's lock
"""


@pytest.mark.parametrize("closes", [False, True])
def test_a_process_that_holds_pythons_lock_for_ever_ends_and_shows_where(closes):
    done = subprocess.run(
        [sys.executable, "-c", HANGS.format(closes=closes)],
        capture_output=True,
        text=True,
        check=False,
    )
    if closes:
        assert (done.returncode, done.stdout, done.stderr) == (0, "left alone\n", "")
        return
    assert done.returncode == 1
    assert done.stderr.startswith("the message\n")
    assert 'File "<string>", line 11 in <module>' in done.stderr
    assert "replaced" not in done.stderr


@given(
    before=st.floats(0, 1e6),
    since_last_look=st.floats(0, 1e9),
    look=st.floats(1e-3, 5),
)
def test_a_process_that_was_stopped_for_any_time_has_not_been_silent_for_it(
    before, since_last_look, look
):
    counted = function("fastssd_silence", arguments=[ctypes.c_double] * 3, result=ctypes.c_double)
    silence = counted(before, since_last_look, look)
    assert before <= silence <= before + 2 * look
    if since_last_look <= 2 * look:
        assert silence == before + since_last_look
