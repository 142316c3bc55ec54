"""Kernels, sandboxes and file systems that lack something: the application runs, and what can be traced is."""
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from conftest import APPS, ROOT, Load
import stack
from test_faults import accounted

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


def flask_behind(scene, home, *before):
    """gunicorn with the Flask application, under the launcher, which itself is started by another command."""
    port = stack.free_port()
    log = scene.path("behind.log")
    launcher = os.path.join(scene.binaries, "whatap-start-agent")
    gunicorn = [sys.executable, os.path.join(os.path.dirname(sys.executable), "gunicorn"), "--bind", "127.0.0.1:%d" % port, "--workers", "2",
                "--graceful-timeout", "5", "--log-level", "warning", "stock:app"]
    environment = home.environment(STOCK_DB=scene.path("stock.sqlite3"), WHATAP_APP_NAME="stock")
    with open(log, "ab") as out:
        process = subprocess.Popen(list(before) + [launcher] + gunicorn, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
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
    app = flask_behind(served, home, sys.executable, WITHOUT, "memfd_create")
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
    """Whoever holds the descriptor can cut such a ring, which nothing seals, and so end its process (docs/protocol.md); others do
    not suffer. A sealed one cannot be cut: test_ring.py."""
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


JOBS = """
import sys, time, whatap

@whatap.method_profiling
def job():
    return 1

for _ in range(int(sys.argv[1])):
    job()
    time.sleep(0.01)
"""


def run_jobs(scene, home, count, *before, python=sys.executable, **more):
    """A program of so many transactions, under the launcher, which itself is started by another command."""
    launcher = os.path.join(scene.binaries, "whatap-start-agent")
    done = subprocess.run(list(before) + [launcher, python, "-c", JOBS, str(count)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=home.environment(WHATAP_APP_NAME="jobs"), timeout=60, **more)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def hook_log(home):
    path = os.path.join(home.directory, "logs", "whatap-hook.log")
    if not os.path.exists(path):
        return ""
    with open(path) as file:
        return file.read()


def test_python_2_gets_such_a_ring_too(served):
    python = os.path.join(os.environ.get("WHATAP_TEST_ENVS") or os.path.join(ROOT, ".envs"), "instrument-2.7", "bin", "python")
    if not os.access(python, os.X_OK):
        pytest.skip("no environment with Python 2.7")
    home = served.home()
    run_jobs(served, home, 20, sys.executable, WITHOUT, "memfd_create", python=python)
    assert served.settled(20) == 20, hook_log(home)


def test_a_file_size_limit_ends_neither_the_application_nor_the_collector(served):
    """`ulimit -f` counts for memory as well: no ring, and a signal that would end whoever asks for one."""
    home = served.home()
    run_jobs(served, home, 30, "sh", "-c", 'ulimit -f 64; export PYTHONDONTWRITEBYTECODE=1; exec "$@"', "sh")
    assert "gives no ring: limit" in hook_log(home)
    assert home.pids("whatap_python")


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


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@needs_root
def test_a_full_disk_is_not_noticed_by_the_application_and_losses_are_counted(served):
    """The home is a file system of 2 MB that is full from the start, in a mount namespace of its own. What memory holds arrives; what it
    cannot hold while the server is away is counted."""
    home = served.home(agent_linger_sec=3, profile_basetime=0)
    script = """
        set -e
        cp "$1/whatap.conf" "$1.conf"
        mount -t tmpfs -o size=2m,mode=755 tmpfs "$1"
        cp -p "$1.conf" "$1/whatap.conf"
        mkdir -p "$1/logs" "$1/spool"
        dd if=/dev/zero of="$1/filler" bs=4096 2>/dev/null || true
        shift
        exec "$@"
        """
    app = flask_behind(served, home, "unshare", "--mount", "--propagation", "private", "sh", "-c", textwrap.dedent(script), "sh", home.directory)
    with Load(app, threads=1) as load:
        time.sleep(1)
        assert served.settled(1) > 0
        served.server.stop()
        ended = time.monotonic() + 60
        long_ones = 0
        while long_ones < 400 and time.monotonic() < ended:
            assert app.get("/sql?n=800")[0] == 200
            long_ones += 1
        load.answered += long_ones
        served.server.start()
        time.sleep(2)
    assert load.broken == 0
    accounted(served, load, app, lost=None)
    assert {row["cause"] for row in served.server.lost_by_cause()["rows"]} == {"disk_full"}


@needs_root
def test_a_full_tmpfs_gives_no_rings_and_kills_nobody(served):
    """Without memfds, and with a /dev/shm that has no room for one ring."""
    home = served.home(agent_linger_sec=2)
    script = 'mount -t tmpfs -o size=128k tmpfs /dev/shm && exec "$@"'
    run_jobs(served, home, 30, "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", sys.executable, WITHOUT, "memfd_create")
    assert "gives no ring: memory" in hook_log(home)


GROUPS = "/sys/fs/cgroup/memory"
BALLAST = """
    import sys
    group, leave = sys.argv[1], int(sys.argv[2])
    def read(name):
        with open(group + '/' + name) as file:
            return file.read()
    def left():
        files = dict(line.split() for line in read('memory.stat').splitlines())
        reclaimable = int(files['total_active_file']) + int(files['total_inactive_file'])
        return int(read('memory.limit_in_bytes')) - int(read('memory.usage_in_bytes')) + reclaimable
    held = []
    while left() > leave:
        held.append(bytearray(b'x' * (1 << 20)))
    print('full', flush=True)
    sys.stdin.readline()
    """


@pytest.fixture
def memory_group():
    """A memory cgroup of 96 MiB with nobody in it."""
    path = "%s/whatap-test-%d" % (GROUPS, os.getpid())
    try:
        os.mkdir(path)
        with open(path + "/memory.limit_in_bytes", "w") as file:
            file.write(str(96 << 20))
    except OSError as error:
        pytest.skip("no memory cgroup of one's own: %s" % error)
    yield path
    try:
        stack.wait_until("the end of the group's processes", lambda: not open(path + "/cgroup.procs").read(), 20)
    finally:
        os.rmdir(path)


@needs_root
def test_no_rings_while_memory_is_short_and_rings_when_there_is_room(served, memory_group):
    """A ring is refused before the kernel would have to kill somebody for it; its process asks again, and nothing is lost."""
    home = served.home(agent_linger_sec=1)
    script, stop = served.path("job.py"), served.path("stop")
    with open(script, "w") as file:
        file.write(textwrap.dedent("""
            import os, sys, time, whatap

            @whatap.method_profiling
            def job():
                return 1

            sys.stdin.readline()
            done = 0
            while not os.path.exists(sys.argv[1]):
                done += job()
                time.sleep(0.1)
            print(done)
            """))

    def join_group():
        with open(memory_group + "/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
    launcher = os.path.join(served.binaries, "whatap-start-agent")
    environment = home.environment(WHATAP_APP_NAME="short")
    app = subprocess.Popen([launcher, sys.executable, script, stop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
                           preexec_fn=join_group)
    served.cleanup.append(app.kill)
    stack.wait_until("the collector", lambda: home.pids("whatap_python"))
    time.sleep(1)
    ballast = subprocess.Popen([sys.executable, "-c", textwrap.dedent(BALLAST), memory_group, str(10 << 20)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, preexec_fn=join_group)
    served.cleanup.append(ballast.kill)
    assert ballast.stdout.readline() == b"full\n"
    app.stdin.close()
    log = os.path.join(home.directory, "logs", "whatap-hook.log")
    stack.wait_until("the refusal", lambda: os.path.exists(log) and "gives no ring: memory" in open(log).read(), 30)
    assert app.poll() is None
    ballast.stdin.close()
    assert ballast.wait(20) == 0
    collector, = home.pids("whatap_python")
    stack.wait_until("a ring", lambda: memory_of(collector), 40)
    open(stop, "w").close()
    done = int(app.stdout.readline())
    assert app.wait(30) == 0
    assert served.settled(done) == done, served.server.lost_by_cause()
