"""What happens when a part dies, stops or fills up, with load running.

Each story ends with the identity `ended in the tracer = stored + lost`, no duplicates, and answers equal to a bare run's."""
import errno
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from conftest import APPS, Load
import stack


def accounted(scene, load, app, lost=0):
    """Stops the load's application gracefully and checks the identity, also against what the tracers counted themselves.
    `lost` None: any number, but counted."""
    app.stop()
    stored = scene.settled(load.answered, timeout=40)
    reported = scene.server.lost()
    assert not load.wrong
    assert stored + reported == load.answered, (stored, reported, load.answered, scene.server.lost_by_cause())
    assert ended_in_tracers(scene, load.answered) == load.answered
    if lost is not None:
        assert reported == lost, scene.server.lost_by_cause()
    assert scene.server.count(aborted=True) == 0
    stored_once(scene, stored)
    assert load.answers == answers_of_a_bare_run(scene, load)
    return stored


def ended_in_tracers(scene, at_least):
    """What the tracers say that ended; the last of it comes with the next account."""
    stack.wait_until("the tracers' account", lambda: scene.server.lost_by_cause()["ended"] >= at_least, 15, 0.2)
    return scene.server.lost_by_cause()["ended"]


def stored_once(scene, expected):
    identities = scene.server.identities()
    assert len(identities) == len(set(identities)) == expected


def answers_of_a_bare_run(scene, load):
    bare = scene.flask(None)
    try:
        return {path: bare.get(path) for path in load.paths}
    finally:
        bare.stop()


def test_a_killed_collector_loses_nothing(served):
    home = served.home()
    app = served.flask(home)
    with Load(app, threads=2, pause=0.02) as load:   # what a ring and its queue hold for the longest pause
        time.sleep(1)
        for within in (2, 5, 5):                    # a collector that dies again and again is given pauses
            collectors = home.pids("whatap_python")
            assert collectors
            for pid in collectors:
                os.kill(pid, signal.SIGKILL)
            stack.wait_until("a new collector", lambda: set(home.pids("whatap_python")) - set(collectors), within)
            time.sleep(1.5)
    assert load.broken == 0
    accounted(served, load, app)


def test_a_killed_watchdog_is_replaced_by_the_next_launchs(served):
    home = served.home()
    app, other = served.flask(home), served.django(home, workers=1)
    assert other.get("/health")[0] == 200
    with Load(app) as load:
        time.sleep(1)
        for pid in home.pids("whatap_watch")[:1] + home.pids("whatap_python"):
            os.kill(pid, signal.SIGKILL)
        time.sleep(3)
    assert load.broken == 0
    app.stop()
    other.stop()
    stored = served.settled(load.answered + 1)
    assert stored + served.server.lost() == load.answered + 1, served.server.lost_by_cause()


def test_a_killed_server_loses_nothing_and_doubles_nothing(served):
    app = served.flask(served.home())
    with Load(app) as load:
        for _ in range(3):
            time.sleep(1.2)
            served.server.kill()
            time.sleep(0.5)
            served.server.start()
    assert load.broken == 0
    accounted(served, load, app)


def test_a_server_away_for_half_a_minute(served):
    app = served.flask(served.home())
    with Load(app, threads=2) as load:
        time.sleep(1)
        served.server.stop()
        time.sleep(30)
        served.server.start()
        time.sleep(1)
    accounted(served, load, app)


def test_a_killed_worker_leaves_its_requests_as_aborted(served):
    home = served.home()
    app = served.flask(home, workers=1)
    assert app.get("/")[0] == 200
    worker, = app.workers()
    waiting = subprocess.Popen([sys.executable, "-c", textwrap.dedent("""
        import http.client
        try:
            http.client.HTTPConnection('127.0.0.1', %d, timeout=20).request('GET', '/slow?seconds=15')
            import time; time.sleep(8)
        except OSError:
            pass""" % app.port)])
    stack.wait_until("the running request", lambda: served.server.get("/api/v1/active")["rows"], 8)
    os.kill(worker, signal.SIGKILL)
    aborted = stack.wait_until("the aborted request", lambda: [r for r in served.server.transactions(aborted=True) if r["outcome"] == "aborted"], 15)
    waiting.kill()
    waiting.wait()
    assert [(row["name"], row["method"], row["pid"]) for row in aborted] == [("/slow", "GET", worker)]
    assert served.server.count() == 1 and served.server.count(aborted=True) == 1
    assert served.server.lost() == 0


def test_workers_killed_under_load_lose_nothing_that_ended(served):
    app = served.flask(served.home(), workers=3)
    with Load(app, threads=6, pause=0.001) as load:
        for _ in range(4):
            time.sleep(0.8)
            os.kill(app.workers()[0], signal.SIGKILL)
        time.sleep(0.8)
    app.stop()
    stored = served.settled(load.answered, timeout=40)
    aborted = served.server.count(aborted=True)
    ended = ended_in_tracers(served, load.answered)
    assert ended == stored + served.server.lost(), served.server.lost_by_cause()
    assert load.answered <= ended <= load.answered + load.broken and aborted <= load.broken
    assert not load.wrong and load.answered > 500
    assert load.answers == answers_of_a_bare_run(served, load)
    stored_once(served, stored + aborted)


def test_what_a_killed_worker_was_doing_is_told(served):
    with open(served.path("waiting.py"), "w") as file:
        file.write(textwrap.dedent("""
            import sqlite3, time
            from flask import Flask
            app = Flask(__name__)

            @app.route('/report')
            def report():
                database = sqlite3.connect(':memory:')
                database.create_function('wait', 1, time.sleep)
                time.sleep(0.3)
                return str(database.execute("select wait(20) as revenue, 'secret-4711' as token").fetchall())
            """))
    app = stack.Application.gunicorn(sys.executable, served.directory, "waiting:app", served.home(app_name="shop"), workers=1, log=served.path("waiting.log"))
    served.cleanup.append(app.stop)
    app.wait()
    asking = socket.create_connection(("127.0.0.1", app.port), timeout=20)
    asking.sendall(b"GET /report HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
    row, = stack.wait_until("the statement", lambda: [r for r in served.server.get("/api/v1/active")["rows"] if r["state"] == "sql"], 15)
    os.kill(row["pid"], signal.SIGKILL)
    aborted, = stack.wait_until("the aborted request", lambda: served.server.transactions(aborted=True), 15)
    asking.close()
    profile = served.server.transaction(aborted["id"])
    step, = profile["steps"]
    assert (step["kind"], step["parent"]) == ("sql", None) and step["text"].startswith("select wait(#) as revenue"), step
    assert "4711" not in json.dumps(profile)
    # From where the statement began to the death; before it, the application's own code.
    assert step["start_us"] >= 250_000
    assert step["start_us"] + step["elapsed_us"] == profile["transaction"]["elapsed_us"]
    assert profile["transaction"]["sql_us"] == step["elapsed_us"]


def test_a_stopped_collector_blocks_nobody(served):
    home = served.home()
    app = served.flask(home)
    with Load(app, threads=2) as load:
        time.sleep(1)
        collectors = home.pids("whatap_python")
        for pid in collectors:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(10)
        slowest = 0
        for _ in range(20):
            began = time.monotonic()
            app.get("/")
            slowest = max(slowest, time.monotonic() - began)
            load.answered += 1
        for pid in collectors:
            os.kill(pid, signal.SIGCONT)
        time.sleep(1)
    assert slowest < 2
    assert load.broken == 0
    accounted(served, load, app, lost=None)


def test_a_full_backlog_of_a_stopped_collector_keeps_nobody_waiting(served):
    home = served.home()
    app = served.flask(home, workers=1)
    assert app.get("/")[0] == 200
    address = listens_at(home.pids("whatap_python") + home.pids("whatap_watch"))
    for pid in home.pids("whatap_python"):
        os.kill(pid, signal.SIGSTOP)
    waiting = []
    try:
        for _ in range(10000):
            place = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            place.setblocking(False)
            waiting.append(place)
            if place.connect_ex(address) == errno.EAGAIN:
                break
        else:
            pytest.fail("the backlog has no end")
        began = time.monotonic()
        for _ in range(3):
            second = served.flask(home, workers=1, name="late")
            assert second.get("/") == (200, b"hello")
            second.stop()
        assert time.monotonic() - began < 20
    finally:
        for place in waiting:
            place.close()
        for pid in home.pids("whatap_python"):
            os.kill(pid, signal.SIGCONT)


def listens_at(pids):
    """The abstract address that one of these processes listens on."""
    held = {os.readlink(path) for pid in pids for path in glob.glob("/proc/%d/fd/*" % pid) if os.path.lexists(path)}
    for line in open("/proc/net/unix"):
        words = line.split()
        if words[-1].startswith("@whatap") and "socket:[%s]" % words[6] in held and words[3] == "00010000":
            return "\0" + words[-1][1:]
    raise AssertionError("no address of %s" % pids)


def test_a_full_spool_drops_the_oldest_and_counts_it(served):
    home = served.home(spool_max_mb=1, profile_basetime=0)
    app = served.flask(home)
    with Load(app, threads=1) as load:
        time.sleep(0.5)
        served.server.kill()
        deadline = time.monotonic() + 25
        while time.monotonic() < deadline:
            app.get("/sql?n=800")
            load.answered += 1
        served.server.start()
        time.sleep(2)
    accounted(served, load, app, lost=None)
    assert served.server.lost() > 0
    assert {row["cause"] for row in served.server.lost_by_cause()["rows"]} == {"spool_full"}


def test_two_thousand_processes_of_one_request_each(served):
    home = served.home()
    script = served.path("many.py")
    with open(script, "w") as file:
        file.write(textwrap.dedent("""
            import os, sys, whatap

            @whatap.method_profiling
            def job():
                return 1

            for batch in range(100):
                children = []
                for _ in range(20):
                    pid = os.fork()
                    if pid == 0:
                        job()
                        os._exit(0)
                    children.append(pid)
                for pid in children:
                    assert os.waitpid(pid, 0)[1] == 0
            """))
    traced = home.launch(sys.executable, script, env={"WHATAP_APP_NAME": "many"}, log=served.path("many.log"))
    assert traced.wait(120) == 0
    assert served.settled(2000, timeout=30) == 2000
    assert served.server.lost() == 0, served.server.lost_by_cause()


@pytest.mark.parametrize("preload", [False, True])
def test_a_sigterm_right_after_the_last_request(served, preload):
    app = served.flask(served.home(), arguments=["--preload"] if preload else [])
    for _ in range(30):
        assert app.get("/")[0] == 200
    app.process.send_signal(signal.SIGTERM)
    app.process.wait(15)
    assert served.settled(30) == 30
    assert served.server.lost() == 0


def test_an_application_that_is_pid_1(served):
    """Its last transaction arrives, and it never waits for a child that it did not start."""
    home = served.home()
    port = stack.free_port()
    log = served.path("pid1.log")
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", os.path.join(served.binaries, "whatap-start-agent"), sys.executable, "-m", "gunicorn",
               "--bind", "127.0.0.1:%d" % port, "--workers", "2", "--log-level", "info", "stock:app"]
    with open(log, "ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=os.path.join(APPS, "flask_stock"),
                                   env=home.environment(STOCK_DB=served.path("stock.sqlite3"), WHATAP_APP_NAME="pid1"))
    app = stack.Application(process, port, log)
    served.cleanup.append(app.stop)
    app.wait()
    for _ in range(20):
        assert app.get("/")[0] == 200
    child, = [int(pid) for pid in open("/proc/%d/task/%d/children" % (process.pid, process.pid)).read().split()]
    os.kill(child, signal.SIGTERM)
    process.wait(20)
    assert served.settled(20) == 20, open(log).read()
    text = open(log).read().lower()
    assert "unknown" not in text and "error" not in text and "sent sig" not in text, text


def test_a_home_that_cannot_be_written(served):
    """Read-only home, another user: the application runs and its transactions arrive."""
    if os.geteuid() != 0 or not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("needs root and an interpreter that every user may run")
    home = served.home()
    os.chmod(os.path.join(home.directory, "whatap.conf"), 0o644)
    os.chmod(home.directory, 0o555)
    programs = served.path("bin")
    os.mkdir(programs)
    for name in ("whatap-start-agent", "whatap_python"):
        shutil.copy(os.path.join(served.binaries, name), programs)
    uid = 64123
    log = served.path("read-only.log")
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [os.path.join(programs, "whatap-start-agent"), "/usr/bin/python3", "-c", JOB], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/",
            env=home.environment(WHATAP_APP_NAME="readonly", HOME="/nonexistent"),
            preexec_fn=lambda: (os.setgroups([]), os.setgid(uid), os.setuid(uid)))
    assert process.wait(30) == 0, open(log).read()
    assert served.settled(3) == 3, open(log).read()


JOB = """
import whatap
@whatap.method_profiling
def job(n):
    return n
assert [job(i) for i in range(3)] == [0, 1, 2]
"""


def test_uwsgi_without_fork_hooks_reports_from_the_first_request_of_each_worker(served):
    home = served.home()
    uwsgi = os.path.join(os.path.dirname(sys.executable), "uwsgi")
    if not os.path.exists(uwsgi):
        pytest.skip("no uwsgi in this environment")
    port = stack.free_port()
    log = served.path("uwsgi.log")
    process = home.launch(uwsgi, "--http-socket", "127.0.0.1:%d" % port, "--module", "stock:app", "--processes", "3", "--master", "--die-on-term",
                          "--virtualenv", os.path.dirname(os.path.dirname(sys.executable)), cwd=os.path.join(APPS, "flask_stock"), log=log,
                          env={"STOCK_DB": served.path("stock.sqlite3"), "WHATAP_APP_NAME": "uwsgi"})
    app = stack.Application(process, port, log)
    served.cleanup.append(app.stop)
    app.wait()
    with Load(app, paths=("/", "/stock/3"), threads=6) as load:
        time.sleep(2)
    accounted(served, load, app)
    assert len({row["pid"] for row in served.server.transactions(limit=5000)}) > 1
