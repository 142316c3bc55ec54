"""After an outage: what has gathered is sent once, beside what comes in, whatever dies meanwhile."""
import os
import signal
import time

from conftest import Load
import stack


def test_a_backlog_is_sent_once_beside_what_comes_in(served):
    home = served.home()
    app = served.flask(home)
    long = "/" + "x" * 1900
    served.server.kill()
    with Load(app, paths=(long,), pause=0) as old:
        stack.wait_until("a backlog", lambda: size_of(served.path("home", "spool")) > 6 << 20, 180, 0.2)
    with Load(app, paths=("/stock/7",), threads=1, pause=0.02) as new:
        served.server.start()
        for pause in (0.3, 1.2, 2.5):
            time.sleep(pause)
            for pid in home.pids("whatap_python"):
                os.kill(pid, signal.SIGKILL)
            stack.wait_until("a new collector", lambda: home.pids("whatap_python"), 20)
        time.sleep(2)
    assert old.broken == new.broken == 0
    app.stop()
    sent = old.answered + new.answered
    stored = served.settled(sent, timeout=90)
    assert stored + served.server.lost() == sent, served.server.lost_by_cause()
    rows = served.server.transactions(limit=100000)
    assert len({row["id"] for row in rows}) == len(rows) == stored
    assert served.server.count(name="/stock/<int:sku>") >= new.answered - served.server.lost()


def size_of(directory):
    total = 0
    for parent, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.path.getsize(os.path.join(parent, name))
            except OSError:
                pass                                # gone meanwhile
    return total
