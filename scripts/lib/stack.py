"""Starts and stops the real programs: the server, applications under the launcher, and queries. Used by the demo and the end-to-end tests."""
import http.client
import json
import os
import signal
import socket
import subprocess
import time

from postgres import free_port

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Failed(Exception):
    """Something did not start or answer; the message is for the person at the terminal."""


def wait_until(what, condition, timeout=20.0, pause=0.05):
    """Returns the first true value of `condition()`; raises `Failed` naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed("%s: not within %.0f s" % (what, timeout))
        time.sleep(pause)


def clean_environment(**more):
    """The caller's environment without anything of ours or of another tracer."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("WHATAP", "PYTHON")) and k.lower() not in ("license", "app_name")}
    keep.update({k: str(v) for k, v in more.items() if v is not None})
    return keep


class Server:
    """`whatap-server` on free ports with a data directory of its own."""

    def __init__(self, binaries, data_dir, agents_port=0, extra=()):
        self.program = os.path.join(binaries, "whatap-server")
        self.data_dir = data_dir
        self.agents_port = agents_port
        self.extra = list(extra)
        self.process = None

    def start(self, timeout=20.0):
        os.makedirs(self.data_dir, exist_ok=True)
        before = self._mtime()
        self.log = open(os.path.join(self.data_dir, "..", os.path.basename(self.data_dir) + ".log"), "ab")
        self.process = subprocess.Popen(
            [self.program, "serve", "--data-dir", self.data_dir, "--listen-agents", "127.0.0.1:%d" % self.agents_port,
             "--listen-http", "127.0.0.1:0"] + self.extra,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=clean_environment())

        def ready():
            if self.process.poll() is not None:
                raise Failed("whatap-server ended with %s, see %s" % (self.process.returncode, self.log.name))
            return self._mtime() != before and self.info.get("pid") == self.process.pid
        wait_until("whatap-server", ready, timeout)
        self.agents_port = int(self.info["agents"].rsplit(":", 1)[1])
        return self

    def _mtime(self):
        try:
            return os.stat(os.path.join(self.data_dir, "server.json")).st_mtime_ns
        except FileNotFoundError:
            return None

    @property
    def info(self):
        try:
            with open(os.path.join(self.data_dir, "server.json")) as file:
                return json.load(file)
        except FileNotFoundError:
            return {}

    @property
    def licence(self):
        with open(os.path.join(self.data_dir, "licence")) as file:
            return file.read().strip()

    def query(self, *arguments):
        """stdout of `whatap-server query …`; raises `Failed` with its stderr."""
        done = subprocess.run([self.program, "query"] + [str(a) for a in arguments] + ["--data-dir", self.data_dir], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=60, env=clean_environment())
        if done.returncode:
            raise Failed("whatap-server query %s: exit %d: %s" % (" ".join(map(str, arguments)), done.returncode, done.stderr.decode().strip()))
        return done.stdout.decode()

    def count(self, **filters):
        return int(self.query("count", *_options(filters)))

    def lost(self, **filters):
        return int(self.query("lost", *_options(filters)))

    def lost_by_cause(self):
        return json.loads(self.query("lost", "--format", "json"))

    def transactions(self, **filters):
        rows = json.loads(self.query("transactions", "--format", "json", *_options(filters)))
        return rows["rows"] if isinstance(rows, dict) else rows

    def identities(self):
        """The ids of all transactions that are stored, in pages: one answer is bounded."""
        found = []
        while True:
            page = self.get("/api/v1/transactions?from=0&limit=10000&offset=%d" % len(found))["rows"]
            found += [row["id"] for row in page]
            if not page:
                return found

    def transaction(self, identity):
        return json.loads(self.query("transaction", identity, "--format", "json"))

    def get(self, path):
        """JSON of an API path, with the token of `server.json`."""
        host, port = self.info["http"].rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("GET", path, headers={"Authorization": "Bearer " + self.info["token"]})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise Failed("GET %s: %d %s" % (path, answer.status, body[:200]))
        return json.loads(body)

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, timeout=15.0):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise Failed("whatap-server did not end within %.0f s of SIGTERM" % timeout)
        return self.process.returncode if self.process else None


def _options(filters):
    options = []
    for name, value in filters.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            options.append(option)
        elif value is not None:
            options += [option, str(value)]
    return options


class Home:
    """A home directory with a `whatap.conf` that reports to `server`."""

    def __init__(self, binaries, directory, server=None, **options):
        self.binaries = binaries
        self.directory = directory
        os.makedirs(directory, exist_ok=True)
        os.chmod(directory, 0o755)
        lines = []
        if server is not None:
            lines = ["license=" + server.licence, "whatap.server.host=127.0.0.1", "whatap.server.port=%d" % server.agents_port]
        lines += ["%s=%s" % (key.replace("__", "."), value) for key, value in options.items()]
        path = os.path.join(directory, "whatap.conf")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")

    def launch(self, *command, env=None, cwd=None, log=None, preexec_fn=None, **more):
        """`whatap-start-agent COMMAND…` of this home. stdout and stderr go to `log` (a path) or to pipes."""
        out = open(log, "ab") if log else subprocess.PIPE
        return subprocess.Popen([os.path.join(self.binaries, "whatap-start-agent")] + list(command), stdin=subprocess.DEVNULL, stdout=out,
                                stderr=out if log else subprocess.PIPE, env=self.environment(**(env or {})), cwd=cwd,
                                preexec_fn=preexec_fn, **more)

    def environment(self, **more):
        return clean_environment(WHATAP_HOME=self.directory, PATH=self.binaries + os.pathsep + os.environ["PATH"], **more)

    def stop(self, timeout=15):
        """Stops the instance; its exit status (0 stopped, 3 none was running)."""
        return subprocess.run([os.path.join(self.binaries, "whatap-stop-agent"), "--timeout", str(timeout)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, env=self.environment(), timeout=timeout + 20).returncode

    def pids(self, program):
        """Pids of this home's `whatap_python` or `whatap_watch` processes."""
        mark = b"WHATAP_HOME=" + self.directory.encode()
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as file:
                    words = file.read().split(b"\0")
                with open("/proc/%s/environ" % pid, "rb") as file:
                    environment = file.read().split(b"\0")
            except OSError:
                continue
            if os.path.basename(words[0]).decode(errors="replace") == program and (mark in environment or self.directory.encode() in words):
                found.append(int(pid))
        return found


class Application:
    """A web application on a free port, bare or under the launcher."""

    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log

    @classmethod
    def gunicorn(cls, python, directory, target, home=None, workers=2, log=None, env=None, arguments=(), port=None):
        port = port or free_port()
        # Not `-m gunicorn`: the releases for Python 2.7 cannot be run so.
        command = [python, os.path.join(os.path.dirname(python), "gunicorn"), "--bind", "127.0.0.1:%d" % port, "--workers", str(workers), "--graceful-timeout", "5",
                   "--log-level", "warning"] + list(arguments) + [target]
        if home is not None:
            process = home.launch(*command, env=env, cwd=directory, log=log, start_new_session=True)
        else:
            out = open(log, "ab") if log else subprocess.DEVNULL
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=clean_environment(**(env or {})), cwd=directory,
                                       start_new_session=True)
        return cls(process, port, log)

    def wait(self, timeout=30.0):
        """Until something listens. No request is sent: counts stay exact."""
        def listens():
            if self.process.poll() is not None:
                raise Failed("the application ended with %s%s" % (self.process.returncode, self._tail()))
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        wait_until("the application on port %d" % self.port, listens, timeout)
        return self

    def _tail(self):
        if not self.log:
            return ""
        with open(self.log, "rb") as file:
            return ":\n" + file.read()[-2000:].decode(errors="replace")

    def get(self, path, headers=None, timeout=30.0):
        """(status, body) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stop(self, timeout=15.0):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def workers(self):
        """Pids of the processes that serve (children of the launched one)."""
        children = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/stat" % pid) as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid:
                children.append(int(pid))
        return children


def binaries():
    """Directory of the programs under test: `WHATAP_TEST_BIN`, else the release build."""
    chosen = os.environ.get("WHATAP_TEST_BIN") or os.path.join(ROOT, "target", "release")
    if not os.access(os.path.join(chosen, "whatap-start-agent"), os.X_OK):
        raise Failed("no whatap-start-agent in %s: run scripts/test, or `cargo build --release`" % chosen)
    return chosen


def end_group(process, timeout=10.0):
    """Ends a process that leads its own group, and the group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout)
            return
        except subprocess.TimeoutExpired:
            pass
