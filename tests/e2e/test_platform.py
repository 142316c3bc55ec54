"""Kernels, sandboxes and file systems that lack something: the application runs, and what can be traced is."""
import os
import signal
import subprocess
import sys
import textwrap
import time

from conftest import APPS, Load
import stack

WITHOUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "without.py")
BREAKS_RINGS = """
    import os, sys
    pid = sys.argv[1]
    for number in os.listdir('/proc/%s/fd' % pid):
        path = '/proc/%s/fd/%s' % (pid, number)
        try:
            target = os.readlink(path)
        except OSError:
            continue
        if 'whatap-ring' in target or '/dev/shm/' in target:
            descriptor = os.open(path, os.O_RDWR)
            try:
                os.ftruncate(descriptor, 0)
                print('cut')
            except PermissionError:
                print('refused')
    """


def flask_without_memfds(scene, home):
    """gunicorn with the Flask application, started where memfd_create does not exist."""
    port = stack.free_port()
    log = scene.path("without.log")
    launcher = os.path.join(scene.binaries, "whatap-start-agent")
    gunicorn = [sys.executable, os.path.join(os.path.dirname(sys.executable), "gunicorn"), "--bind", "127.0.0.1:%d" % port, "--workers", "2",
                "--graceful-timeout", "5", "--log-level", "warning", "stock:app"]
    environment = home.environment(STOCK_DB=scene.path("stock.sqlite3"), WHATAP_APP_NAME="stock")
    with open(log, "ab") as out:
        process = subprocess.Popen([sys.executable, WITHOUT, "memfd_create", launcher] + gunicorn, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   cwd=os.path.join(APPS, "flask_stock"), env=environment, start_new_session=True)
    app = stack.Application(process, port, log)
    scene.cleanup.append(app.stop)
    return app.wait()


def memory_of(pid):
    """What the ring descriptors of a process are."""
    found = []
    for number in os.listdir("/proc/%d/fd" % pid):
        try:
            target = os.readlink("/proc/%d/fd/%s" % (pid, number))
        except OSError:
            continue
        if "whatap-ring" in target or target.startswith(("/dev/shm/", "/run/user/")):
            found.append(target)
    return found


def test_without_memfds_nothing_is_lost_and_a_killed_collector_loses_nothing(served):
    home = served.home()
    app = flask_without_memfds(served, home)
    with Load(app, threads=2, pause=0.02) as load:
        stack.wait_until("rings on tmpfs", lambda: [pid for pid in home.pids("whatap_python") if memory_of(pid)])
        collector, = home.pids("whatap_python")
        assert not [target for target in memory_of(collector) if "memfd" in target or "(deleted)" not in target]
        os.kill(collector, signal.SIGKILL)
        stack.wait_until("a new collector", lambda: set(home.pids("whatap_python")) - {collector}, 10)
        time.sleep(1)
    assert load.broken == 0 and not load.wrong
    app.stop()
    assert served.settled(load.answered, timeout=40) == load.answered, served.server.lost_by_cause()
    assert served.server.lost() == 0


def test_a_ring_on_tmpfs_that_is_cut_does_not_end_the_collector(served):
    """Whoever holds the descriptor can cut such a ring; others must not suffer."""
    home = served.home()
    script = served.path("one.py")
    with open(script, "w") as file:
        file.write(textwrap.dedent("""
            import sys, time, whatap

            @whatap.method_profiling
            def job():
                return 1

            job()
            sys.stdin.readline()
            """))
    launcher = os.path.join(served.binaries, "whatap-start-agent")
    command = [sys.executable, WITHOUT, "memfd_create", launcher, sys.executable, script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=home.environment(WHATAP_APP_NAME="one"))
    assert served.settled(1) == 1
    collector, = home.pids("whatap_python")
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(BREAKS_RINGS), str(collector)], stdout=subprocess.PIPE, check=True).stdout
    assert said.split() == [b"cut"]
    process.stdin.close()
    process.wait(20)
    other = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=home.environment(WHATAP_APP_NAME="two"))
    assert other.wait(20) == 0
    assert served.settled(2) == 2
    assert home.pids("whatap_python") == [collector]


def test_a_sealed_ring_cannot_be_cut_by_anybody(served):
    """From the application's side, too: its descriptor is the same memory."""
    home = served.home()
    app = served.flask(home, workers=1)
    assert app.get("/")[0] == 200
    worker, = app.workers()
    holders = [worker] + home.pids("whatap_python") + home.pids("whatap_watch")
    said = [subprocess.run([sys.executable, "-c", textwrap.dedent(BREAKS_RINGS), str(pid)], stdout=subprocess.PIPE, check=True).stdout.split()
            for pid in holders]
    assert said[0] and set(sum(said, [])) == {b"refused"}, said
    for _ in range(5):
        assert app.get("/")[0] == 200
    app.stop()
    assert served.settled(6) == 6
