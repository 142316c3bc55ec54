"""Several users on one machine: made-up ones, strangers to each other, one of them at times with bad intentions.

What each of them sees of the others is nothing; what a stranger prepares under our names is neither followed, nor waited for, nor killed."""
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time

import pytest

import stack

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.access("/usr/bin/python3", os.X_OK),
                                reason="needs root, and an interpreter that every user may run")
PYTHON = "/usr/bin/python3"
ALICE, BOB, NOBODY = 61001, 61002, 65534
JOB = """
import whatap
@whatap.batch_profiling
def job(n):
    return n
print([job(i) for i in range(3)])
"""
WAITING = JOB + "import sys\nsys.stdout.flush()\nsys.stdin.read()\n"


class User:
    """A made-up user with a home for the tracer, and processes that end with the test."""

    def __init__(self, scene, uid):
        self.scene, self.uid = scene, uid
        self.programs = scene.programs_for_everybody()
        self.directory = scene.path("user-%d" % uid)
        self.home = os.path.join(self.directory, "whatap")
        if not os.path.isdir(self.directory):
            for directory in (self.directory, self.home):
                os.mkdir(directory)
                self.own(directory, 0o755)
            self.conf("license=%s\nwhatap.server.host=127.0.0.1\nwhatap.server.port=%d\napp_name=user%d\nagent_linger_sec=60\n" % (
                scene.server.licence, scene.server.agents_port, uid))
        scene.cleanup.append(self.leave)

    def conf(self, text, mode=0o600):
        path = os.path.join(self.home, "whatap.conf")
        with open(path, "w") as file:
            file.write(text)
        self.own(path, mode)

    def own(self, path, mode=None):
        os.chown(path, self.uid, self.uid, follow_symlinks=False)
        if mode is not None:
            os.chmod(path, mode)

    def become(self, umask=0o022):
        def change():
            os.setsid()
            os.setgroups([])
            os.setgid(self.uid)
            os.setuid(self.uid)
            os.umask(umask)
        return change

    def environment(self, **more):
        return dict({"PATH": self.programs + ":/usr/bin:/bin", "HOME": self.directory, "LANG": "C.UTF-8", "WHATAP_HOME": self.home}, **more)

    def spawn(self, *command, umask=0o022, **more):
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
                                env=self.environment(**more), preexec_fn=self.become(umask))

    def run(self, *command, timeout=60, **more):
        """(exit status, stdout, stderr)"""
        process = self.spawn(*command, **more)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, out.decode(), err.decode()

    def start(self, code=JOB, **more):
        return self.run("whatap-start-agent", PYTHON, "-c", code, **more)

    def start_and_stay(self, **more):
        """A program that has done its job and waits."""
        process = self.spawn("whatap-start-agent", PYTHON, "-c", WAITING, **more)
        self.scene.cleanup.append(lambda: (process.kill(), process.communicate()))
        assert process.stdout.readline() == b"[0, 1, 2]\n"
        return process

    def processes(self, program):
        """Pids of this user's processes whose command is called so."""
        return [pid for pid in pids() if owner(pid) == self.uid and os.path.basename(words(pid)[0]) == program]

    def leave(self):
        self.run("whatap-stop-agent", "--all", "--timeout", "10")
        for path in ("/tmp/whatap-%d" % self.uid, "/tmp/whatap-%d-tracer" % self.uid):
            shutil.rmtree(path, ignore_errors=True)


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def owner(pid):
    try:
        return os.stat("/proc/%d" % pid).st_uid
    except OSError:
        return None


def words(pid):
    return read("/proc/%d/cmdline" % pid).decode(errors="replace").split("\0")


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def files(*roots):
    """Every path below the roots, the roots too."""
    for root in roots:
        if os.path.lexists(root):
            yield root
        for top, directories, names in os.walk(root):
            for name in directories + names:
                yield os.path.join(top, name)


@pytest.fixture
def alice(served):
    return User(served, ALICE)


@pytest.fixture
def bob(served):
    return User(served, BOB)


def test_l08_two_users_do_not_meet(served, alice, bob):
    one, two = alice.start_and_stay(), bob.start_and_stay()
    assert served.settled(6) == 6
    assert {name: served.server.count(service=name) for name in ("user%d" % ALICE, "user%d" % BOB)} == {"user%d" % ALICE: 3, "user%d" % BOB: 3}
    collectors = [user.processes("whatap_python") for user in (alice, bob)]
    assert [len(found) for found in collectors] == [1, 1]
    # One's hands do not reach the other: neither by the home's name, nor by all.
    assert bob.run("whatap-stop-agent", "--home", alice.home)[0] in (1, 3)
    assert alice.processes("whatap_python") == collectors[0]
    assert bob.run("whatap-stop-agent", "--all")[0] == 0
    stack.wait_until("bob's agent to end", lambda: not bob.processes("whatap_python"), 20)
    assert alice.processes("whatap_python") == collectors[0]
    assert (one.poll(), two.poll()) == (None, None)
    assert alice.run("whatap-stop-agent")[0] == 0
    assert alice.run("whatap-stop-agent")[0] == 3


def test_l08_a_stranger_on_the_socket_gets_no_answer(served, alice, bob):
    name = name_of(alice.start_and_stay())
    answer = bob.run(PYTHON, "-c", textwrap.dedent("""
        import socket
        for verb in ("stop", "status", "attach", "drain"):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            connection.settimeout(5)
            try:
                connection.connect("\\0%s")
                connection.send((verb + "\\npid=1\\nversion=3.0.0\\n").encode())
                print(verb, connection.recv(1000)[:3])
            except OSError as error:
                print(verb, type(error).__name__)
        """ % name))
    assert answer[0] == 0, answer
    for line in answer[1].splitlines():
        assert line.split(None, 1)[1] in ("b''", "b'no\\n'", "ConnectionResetError", "BrokenPipeError"), answer
    assert alice.processes("whatap_python")
    assert served.settled(3) == 3


def test_l09_a_stranger_on_our_ports_hears_nothing(served, alice, bob):
    ear = bob.spawn(PYTHON, "-c", textwrap.dedent("""
        import select, socket, sys
        ears = []
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            for port in (6600, 6601):
                ear = socket.socket(socket.AF_INET, kind)
                ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    ear.bind(("127.0.0.1", port))
                    kind == socket.SOCK_STREAM and ear.listen()
                    ears.append(ear)
                except OSError:
                    pass
        print(len(ears), flush=True)
        heard = [ear.type for ear in select.select(ears + [sys.stdin], [], [])[0] if ear is not sys.stdin]
        print(heard)
        """))
    assert int(ear.stdout.readline()) >= 2
    assert alice.start()[:2] == (0, "[0, 1, 2]\n")
    assert served.settled(3) == 3
    assert ear.communicate(b"\n", 20)[0] == b"[]\n"


def test_l10_a_home_that_is_read_only_for_nobody(served):
    nobody = User(served, NOBODY)
    nobody.own(nobody.home, 0o555)
    os.chown(nobody.home, 0, 0)
    assert nobody.start() == (0, "[0, 1, 2]\n", "")
    assert served.settled(3) == 3
    assert sorted(os.listdir(nobody.home)) == ["whatap.conf"]
    assert stat.S_IMODE(os.stat("/tmp/whatap-%d" % NOBODY).st_mode) == 0o700


@pytest.mark.parametrize("umask", [0, 0o077])
def test_nothing_that_we_make_is_writable_by_others_whatever_the_umask(served, alice, umask):
    alice.start_and_stay(umask=umask)
    assert served.settled(3) == 3
    cache = os.path.join(alice.directory, ".cache", "whatap")
    found = [path for path in files(alice.home, cache, "/tmp/whatap-%d" % ALICE) if path not in (alice.home,)]
    assert len(found) > 5
    for path in found:
        mode = os.lstat(path).st_mode
        assert not mode & 0o022, (path, oct(mode))
        assert os.lstat(path).st_uid == ALICE, path
        if stat.S_ISREG(mode) and not path.startswith(cache):
            assert not mode & 0o007, (path, oct(mode))


def test_secrets_stay_with_their_owner(served, alice):
    """The licence and the application's own secrets: in no command line, no log, no spool, no environment but the application's."""
    licence = served.server.licence
    alice.conf("whatap.server.host=127.0.0.1\nwhatap.server.port=%d\n" % served.server.agents_port)
    secret = "s3cret-of-the-application"
    environment = dict(WHATAP_LICENSE=licence, DATABASE_PASSWORD=secret)
    process = alice.start_and_stay(**environment)
    assert served.settled(3) == 3
    ours = alice.processes("whatap_python") + alice.processes("whatap_watch")
    assert len(ours) >= 2
    for needle in (licence.encode(), secret.encode()):
        for pid in pids():
            assert needle not in read("/proc/%d/cmdline" % pid), words(pid)
        for pid in ours:
            assert needle not in read("/proc/%d/environ" % pid)
        for path in files(alice.home, "/tmp/whatap-%d" % ALICE, os.path.join(alice.directory, ".cache")):
            if os.path.isfile(path):
                assert needle not in read(path), path
    # What the launcher adds to the application's environment holds no secret either.
    added = dict(pair.split(b"=", 1) for pair in read("/proc/%d/environ" % process.pid).split(b"\0") if b"=" in pair)
    assert licence.encode() not in added[b"WHATAP_LAUNCH"] and secret.encode() not in added[b"WHATAP_LAUNCH"]
    for words_ in (["whatap-doctor"], ["whatap-setting-config", "--print"], ["whatap-start-agent", "--dry-run", "true"]):
        status, out, err = alice.run(*words_, **environment)
        assert licence not in out + err and secret not in out + err, (words_, out, err)


def test_a_strangers_process_with_our_name_disturbs_nobody_and_survives(served, alice, bob):
    copies = []
    for user in (bob, alice):
        for name in ("whatap_python", "whatap_watch"):
            path = os.path.join(user.directory, name)
            shutil.copy("/bin/sleep", path)
            user.own(path, 0o755)
            copies.append(user.spawn(path, "300"))
    try:
        assert alice.start() == (0, "[0, 1, 2]\n", "")
        assert served.settled(3) == 3
        assert alice.run("whatap-stop-agent", "--force", "--timeout", "10")[0] == 0
        assert alice.run("whatap-stop-agent", "--all", "--force", "--timeout", "10")[0] in (0, 3)
        assert [copy.poll() for copy in copies] == [None] * 4
    finally:
        for copy in copies:
            copy.kill()
            copy.communicate()


def test_a_stranger_on_our_abstract_name_gets_nothing(served, alice, bob):
    """The launch has an instance of its own then, under another name."""
    first = alice.start_and_stay()
    name = name_of(first)
    first.communicate(b"", 20)
    assert alice.run("whatap-stop-agent")[0] in (0, 3)
    stack.wait_until("the name to be free", lambda: ("@" + name).encode() not in read("/proc/net/unix"), 20)
    squatter = bob.spawn(PYTHON, "-c", textwrap.dedent("""
        import select, socket, sys
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ear.bind("\\0%s")
        ear.listen(100)
        print("there", flush=True)
        heard = b""
        waiting = [ear, sys.stdin]
        while sys.stdin in waiting:
            for ready in select.select(waiting, [], [])[0]:
                if ready is sys.stdin:
                    waiting.remove(ready)
                elif ready is ear:
                    waiting.append(ear.accept()[0])
                else:
                    data = ready.recv(10000)
                    heard += data
                    data or waiting.remove(ready)
        print(heard)
        """ % name))
    assert squatter.stdout.readline() == b"there\n"
    process = alice.start_and_stay()
    assert served.settled(6) == 6
    assert name_of(process) != name
    assert squatter.communicate(b"", 20)[0] == b"b''\n"


def name_of(process):
    """The name of the instance that the launcher handed to this application."""
    return re.search(rb"WHATAP_LAUNCH=1;(?:.*?;)?_name=([^;]*)", read("/proc/%d/environ" % process.pid)).group(1).decode()


KINDS = ("link", "dangling link", "hard link", "fifo", "directory", "device", "unreadable")


def plant(kind, path, victim, uid):
    """Something of this kind under one of our names, by a user with bad intentions."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)
    if kind == "link":
        os.symlink(victim, path)
    elif kind == "dangling link":
        os.symlink(victim + ".new", path)
    elif kind == "hard link":
        os.link(victim, path)
        return
    elif kind == "fifo":
        os.mkfifo(path, 0o666)
    elif kind == "directory":
        os.mkdir(path, 0o777)
        os.chmod(path, 0o777)
    elif kind == "device":
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 7))       # /dev/full
    else:
        open(path, "w").close()
        os.chmod(path, 0)
    os.chown(path, uid, uid, follow_symlinks=False)


class Victim:
    """A file and a directory that must stay as they are, and a home in which the stranger may do what he likes."""

    def __init__(self, user):
        self.directory = user.scene.path("precious")
        os.mkdir(self.directory)
        self.file = os.path.join(self.directory, "file")
        with open(self.file, "w") as file:
            file.write("precious\n")
        for path in (self.directory, self.file):
            user.own(path)

    def is_untouched(self):
        return read(self.file) == b"precious\n" and os.listdir(self.directory) == ["file"]


def names_in_home():
    day = time.strftime("%Y%m%d")
    return ["logs", "spool", "whatap.conf", "logs/whatap-boot-%s.log" % day, "logs/whatap-hook.log", "spool/1", "spool/1/lock", "whatap_python",
            "plugin.json", "paramkey.txt"]


@pytest.mark.parametrize("kind", KINDS)
def test_traps_in_a_home_that_everybody_may_write_to(served, alice, bob, kind):
    """Each name that we use there is a trap once. The application runs, at once, and what the trap leads to is left alone."""
    victim = Victim(alice)
    os.chmod(alice.home, 0o777)
    conf = read(os.path.join(alice.home, "whatap.conf")).decode()
    for name in names_in_home():
        path = os.path.join(alice.home, name)
        for top in ("logs", "spool"):
            shutil.rmtree(os.path.join(alice.home, top), ignore_errors=True)
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            os.makedirs(parent)
            os.chmod(parent, 0o777)
            os.chown(parent, BOB, BOB)
        plant(kind, path, victim.directory if kind == "link" and name in ("logs", "spool", "spool/1") else victim.file, BOB)
        status, out, _ = alice.start(timeout=30)
        assert (status, out) == (0, "[0, 1, 2]\n"), name
        stopped = alice.run("whatap-stop-agent", "--timeout", "10")
        assert stopped[0] in (0, 3), (name, stopped)
        assert victim.is_untouched(), name
        plant("unreadable", path, victim.file, BOB)
        os.remove(path)
        if name == "whatap.conf":
            alice.conf(conf)


@pytest.mark.parametrize("kind", KINDS)
def test_traps_in_tmp(served, alice, bob, kind):
    """The private directories' names, when the home is read-only and the user has no place of his own."""
    victim = Victim(alice)
    alice.own(alice.home, 0o555)
    os.chown(alice.home, 0, 0)
    os.chown(alice.directory, 0, 0)
    for path in ("/tmp/whatap-%d" % ALICE, "/tmp/whatap-%d-tracer" % ALICE):
        shutil.rmtree(path, ignore_errors=True)
        plant(kind, path, victim.file if kind != "link" else victim.directory, BOB)
    try:
        status, out, err = alice.run("whatap-start-agent", PYTHON, "-c", "print(1)", timeout=30)
        assert (status, out) == (0, "1\n"), err
        assert len(err.splitlines()) <= 1, err
        assert victim.is_untouched()
    finally:
        for path in ("/tmp/whatap-%d" % ALICE, "/tmp/whatap-%d-tracer" % ALICE):
            os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)


def test_root_in_a_strangers_home_executes_nothing_of_his(served, bob):
    """While he keeps renaming, linking and replacing what lies there."""
    os.chmod(bob.home, 0o777)
    proof = os.path.join(bob.directory, "proof")
    victim = Victim(bob)
    trap = os.path.join(bob.directory, "trap")
    with open(trap, "w") as file:
        file.write("#!/bin/sh\nid -u >> %s\n" % proof)
    bob.own(trap, 0o755)
    racer = bob.spawn(PYTHON, "-c", textwrap.dedent("""
        import os, time
        home, trap, precious = %r, %r, %r
        names = ["whatap_python", "whatap_watch", "bin/whatap_python", "logs", "spool", "run", "plugin.json"]
        os.makedirs(home + "/bin", exist_ok=True)
        until = time.time() + 60
        while time.time() < until:
            for name in names:
                path = home + "/" + name
                for make in (lambda: os.symlink(trap, path), lambda: os.link(trap, path), lambda: os.symlink(precious, path)):
                    try:
                        os.rename(path, path + ".old")
                    except OSError:
                        pass
                    try:
                        make()
                    except OSError:
                        pass
        """ % (bob.home, trap, victim.directory)))
    environment = stack.clean_environment(WHATAP_HOME=bob.home, PATH=bob.programs + ":/usr/bin:/bin")
    try:
        for _ in range(10):
            done = subprocess.run(["whatap-start-agent", sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  env=environment, timeout=60, executable=os.path.join(bob.programs, "whatap-start-agent"))
            assert (done.returncode, done.stdout) == (0, b"1\n"), done.stderr
            subprocess.run([os.path.join(bob.programs, "whatap-stop-agent"), "--timeout", "10"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           env=environment, timeout=60)
        assert racer.poll() is None
    finally:
        racer.kill()
        racer.communicate()
    assert not os.path.exists(proof)
    assert victim.is_untouched()
    assert not [path for path in files(bob.home) if os.lstat(path).st_uid == 0]


SERVER_NAMES = ("server.json", "licence", "projects.json", "sessions.json", "lock", "wal", "segments", "catalogue.db")


@pytest.mark.parametrize("kind", KINDS)
def test_traps_in_the_servers_data_directory(scene, bob_without_server, kind):
    """Somebody could write there before root's server comes: it starts without following, waiting or writing through, or says in one
    line why not."""
    victim = Victim(bob_without_server)
    os.chown(victim.file, 0, 0)
    for name in SERVER_NAMES:
        data = scene.path("data-" + name)
        os.mkdir(data)
        os.chmod(data, 0o777)
        os.chown(data, BOB, BOB)
        plant(kind, os.path.join(data, name), victim.directory if kind == "link" and name in ("wal", "segments") else victim.file, BOB)
        with open(scene.path("log"), "w+b") as log:
            server = subprocess.Popen([os.path.join(scene.binaries, "whatap-server"), "serve", "--data-dir", data, "--listen-agents", "127.0.0.1:0",
                                       "--listen-http", "127.0.0.1:0"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=stack.clean_environment())
            try:
                stack.wait_until("the server with %s" % name, lambda: server.poll() is not None or b"agents on" in read(log.name), 20)
                ended = server.poll()
            finally:
                server.terminate()
                server.wait(20)
        said = read(scene.path("log")).decode()
        assert ended is None or (ended == 1 and len(said.splitlines()) <= 2), (name, ended, said)
        assert victim.is_untouched(), name


@pytest.fixture
def bob_without_server(scene):
    class Bob(User):
        def __init__(self):
            self.scene, self.uid = scene, BOB
    return Bob()
