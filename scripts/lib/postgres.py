"""A private PostgreSQL on a unix socket, for the demo and the tests: started and stopped by whoever asks for it."""
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time


class Unavailable(Exception):
    """PostgreSQL cannot be had here; the message says why."""


class Postgres:
    """One cluster in `directory`. `url` can be connected to once `start()` has returned.

    With a `password` it also listens on a free port of the loopback address and asks for it."""

    def __init__(self, directory, password=None):
        self.directory = os.path.abspath(directory)
        self.password = password
        self.port = free_port() if password else 5432
        self.data = os.path.join(self.directory, "data")
        self.process = None
        self.user = "demo"
        self.database = "demo"

    @property
    def url(self):
        return "postgresql://%s@/%s?host=%s" % (self.user, self.database, self.directory)

    def start(self, timeout=30.0):
        """Creates the cluster if it is new, starts it, waits until it answers. Raises `Unavailable`."""
        binaries = _binaries()
        if binaries is None:
            raise Unavailable("no `initdb` and `postgres` found")
        if len(self.directory) > 80:
            raise Unavailable("the path of its socket would be too long")
        as_user = _unprivileged()
        os.makedirs(self.directory, exist_ok=True)
        os.chmod(self.directory, 0o755)
        if as_user:
            os.chown(self.directory, *as_user)
            for parent in _parents(self.directory):
                if not os.stat(parent).st_mode & 0o001:
                    raise Unavailable("%s is closed to other users, and PostgreSQL refuses to run as root" % parent)
        run = lambda *command: subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
                                              preexec_fn=_become(as_user))
        if not os.path.exists(os.path.join(self.data, "PG_VERSION")):
            made = run(os.path.join(binaries, "initdb"), "-D", self.data, "-U", self.user, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
            if self.password and not made.returncode:
                with open(os.path.join(self.data, "pg_hba.conf"), "w") as rules:
                    rules.write("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
            if made.returncode:
                raise Unavailable("initdb: " + made.stdout.decode(errors="replace").strip().splitlines()[-1])
        log = open(os.path.join(self.directory, "postgres.log"), "ab")
        if as_user:
            os.fchown(log.fileno(), *as_user)
        self.process = subprocess.Popen(
            [os.path.join(binaries, "postgres"), "-D", self.data, "-k", self.directory, "-p", str(self.port), "-c", "fsync=off",
             "-c", "listen_addresses=" + ("127.0.0.1" if self.password else ""), "-c", "shared_buffers=16MB", "-c", "max_connections=200"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", preexec_fn=_become(as_user),
            start_new_session=True)                  # a Ctrl-C at the terminal is for whoever started it, which then stops it
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Unavailable("postgres ended at once, see %s" % log.name)
            ask = lambda statement: run(os.path.join(binaries, "psql"), "-h", self.directory, "-p", str(self.port), "-U", self.user, "-d", "postgres",
                                        "-Atc", statement)
            ready = ask("select count(*) from pg_database where datname = '%s'" % self.database)
            if ready.returncode == 0:
                if ready.stdout.strip() == b"0":
                    ask("create database %s" % self.database)
                if self.password:
                    ask("alter role %s password '%s'" % (self.user, self.password))
                return self
            time.sleep(0.1)
        raise Unavailable("postgres did not answer within %.0f s" % timeout)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _binaries():
    """The directory that holds `initdb`, `postgres` and `psql`, the newest first."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: -float(path.split("/")[4]))
    for directory in found + [os.path.dirname(shutil.which("initdb") or "/")]:
        if all(os.access(os.path.join(directory, name), os.X_OK) for name in ("initdb", "postgres", "psql")):
            return directory
    return None


def _unprivileged():
    """(uid, gid) to run as, or None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
        except KeyError:
            pass
    return 65534, 65534


def _become(as_user):
    if as_user is None:
        return None

    def drop():
        os.setgroups([])
        os.setgid(as_user[1])
        os.setuid(as_user[0])
    return drop


def _parents(path):
    while path != "/":
        path = os.path.dirname(path)
        yield path
