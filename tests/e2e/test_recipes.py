"""Each recipe of docs/recipes.md, executed as it stands there with the real program: every request is stored, nothing is lost, and
standard output is the application's.

Only the places of the examples are replaced: /srv/shop, /opt/venv, /var/lib/whatap/shop, port 8000, the server and the licence."""
import glob
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from conftest import APPS, ROOT
import stack

RECIPE = re.compile(r"<!-- recipe: (?P<name>\S+) -->\n(?:<!-- run: .*? -->\n)?```\w+\n(?P<text>.*?)```", re.S)
BIN = os.path.dirname(sys.executable)
LICENCE = "x21og000g40o4-xa1g7104gk2oc-xq3gf00000000"


def recipes():
    with open(os.path.join(ROOT, "docs", "recipes.md"), encoding="utf-8") as file:
        return {match["name"]: match["text"] for match in RECIPE.finditer(file.read())}


RECIPES = recipes()


class Kitchen:
    """A place for one application, laid out as the recipes expect it."""

    def __init__(self, scene, app="flask_stock", home=None):
        self.scene = scene
        self.home = home or scene.home()
        self.port = stack.free_port()
        self.srv = scene.path("srv-%d" % self.port)
        shutil.copytree(os.path.join(APPS, app), self.srv, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3"))
        self.out, self.err = scene.path("out-%d" % self.port), scene.path("err-%d" % self.port)

    def filled_in(self, name):
        text = RECIPES[name]
        installed = "/opt/venv/lib/python3/site-packages/whatap"
        if installed in text:
            text = text.replace(installed, self.package())
        for found, ours in [("/opt/venv/bin/whatap", self.scene.binaries + "/whatap"), ("/opt/venv", os.path.dirname(BIN)), ("/var/lib/whatap/shop", self.home.directory), ("/srv/shop", self.srv),
                            ("127.0.0.1:8000", "127.0.0.1:%d" % self.port), ("--port 8000", "--port %d" % self.port),
                            ("127.0.0.1:6600", "127.0.0.1:%d" % self.scene.server.agents_port), (LICENCE, self.scene.server.licence)]:
            text = text.replace(found, ours)
        return text

    def package(self):
        """The directory of the tracer's package that the launcher uses."""
        shown = subprocess.run([os.path.join(self.scene.binaries, "whatap-start-agent"), "printenv", "PYTHONPATH"], stdout=subprocess.PIPE,
                               env=self.home.environment(), check=True).stdout.decode()
        return os.path.dirname(shown.split(":")[0].strip())

    def file(self, name, text):
        path = os.path.join(self.srv, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def environment(self, **more):
        """As a login shell has it, with nothing of ours but the programs on PATH."""
        more.setdefault("STOCK_DB", os.path.join(self.srv, "stock.sqlite3"))
        more.setdefault("DATABASE_URL", "sqlite:///" + os.path.join(self.srv, "shop.sqlite3"))
        return stack.clean_environment(PATH=os.pathsep.join([self.scene.binaries, BIN, os.environ["PATH"]]), **more)

    def start(self, command, env=None, cwd="/", wait=True, **more):
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=env or self.environment(),
                                       start_new_session=True, **more)
        app = stack.Application(process, self.port, self.err)
        self.scene.cleanup.append(app.stop)
        return app.wait(60) if wait else app

    def shell(self, name, arguments="", **more):
        return self.start(["sh", "-ec", self.filled_in(name).rstrip() + arguments], **more)

    def printed(self, path=None):
        with open(path or self.out, "rb") as file:
            return file.read().decode(errors="replace")

    def serves(self, app, count=12, paths=("/", "/stock/3", "/sql?n=2")):
        """Sends so many requests, stops the application, and finds each of them on the server."""
        for number in range(count):
            assert app.get(paths[number % len(paths)])[0] == 200
        app.stop()
        self.stored(count)

    def stored(self, count, stdout=""):
        stored = self.scene.settled(count)
        lost = self.scene.server.lost_by_cause()
        assert stored == count, "%d of %d stored, lost %s\n%s" % (stored, count, lost, self.printed(self.err)[-3000:])
        assert self.scene.server.lost() == 0, lost
        if stdout is not None:
            assert self.printed() == stdout
        assert "whatap-" not in self.printed(self.err).replace(self.scene.directory, "").replace(self.scene.binaries, "")


def test_every_recipe_has_a_test():
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    assert [name for name in RECIPES if '"%s"' % name not in text] == []


def test_shell(served):
    kitchen = Kitchen(served, home=stack.Home(served.binaries, served.path("home")))
    served.cleanup.append(kitchen.home.stop)
    os.remove(os.path.join(kitchen.home.directory, "whatap.conf"))
    subprocess.run(["sh", "-ec", kitchen.filled_in("configure")], env=kitchen.environment(), check=True, stdout=subprocess.DEVNULL)
    kitchen.file("stock.py", kitchen.printed(os.path.join(kitchen.srv, "stock.py")) + textwrap.dedent("""
        from wsgiref.simple_server import make_server
        make_server("127.0.0.1", %d, app).serve_forever()
        """ % kitchen.port))
    kitchen.serves(kitchen.shell("shell"))
    assert served.server.count(service="shop") == 12


def test_runserver_with_its_reloader(served):
    kitchen = Kitchen(served, "django_shop")
    app = kitchen.shell("runserver", env=kitchen.environment(DJANGO_DEBUG="1"))
    for _ in range(4):
        assert app.get("/health")[0] == 200
    began = kitchen.printed(kitchen.err).count("Watching for file changes")
    # The reloader looks once a second, and what changed before its first look is no change to it.
    path = os.path.join(kitchen.srv, "shop", "urls.py")

    def reloads():
        if kitchen.printed(kitchen.err).count("Watching for file changes") > began:
            return True
        os.utime(path, (os.stat(path).st_mtime + 10,) * 2)
        return False
    stack.wait_until("the reload", reloads, 30, 3)
    app.wait()
    for _ in range(4):
        assert app.get("/health")[0] == 200
    stack.end_group(app.process)
    kitchen.stored(8, stdout=None)
    assert "whatap" not in kitchen.printed().replace(served.directory, "")
    assert len({row["pid"] for row in served.server.transactions()}) == 2


GUNICORN = {"sync": "", "gthread": " --worker-class gthread --threads 4", "gevent": " --worker-class gevent", "preload": " --preload",
            "max-requests": " --max-requests 3"}


@pytest.mark.parametrize("kind", GUNICORN)
def test_gunicorn(served, kind):
    kitchen = Kitchen(served)
    kitchen.serves(kitchen.shell("gunicorn", GUNICORN[kind]))
    assert "warning" not in kitchen.printed(kitchen.err).lower()


def test_gunicorn_that_reloads(served):
    kitchen = Kitchen(served)
    app = kitchen.shell("gunicorn", " --reload --workers 1 --log-level info")
    assert app.get("/")[0] == 200

    def changed():
        # A change before its first look is none for gunicorn.
        os.utime(os.path.join(kitchen.srv, "stock.py"))
        return "Worker reloading" in kitchen.printed(kitchen.err)
    stack.wait_until("the reload", changed, 30, 1.5)
    stack.wait_until("the new worker", lambda: kitchen.printed(kitchen.err).count("Booting worker") >= 2, 30)
    stack.wait_until("its answer", lambda: answers(app), 30)
    app.stop()
    kitchen.stored(2)


def answers(app):
    """One answered request, whatever it takes to connect: the listener is open while the workers change."""
    try:
        return app.get("/")[0] == 200
    except OSError:
        return False


def test_uvicorn_with_workers(served):
    kitchen = Kitchen(served, "django_shop")
    kitchen.serves(kitchen.shell("uvicorn", " --log-level warning"), paths=("/health",))


UWSGI = {"plain": "enable-threads = false", "threads": "enable-threads = true\nthreads = 2", "lazy": "lazy-apps = true",
         "hooks": "py-call-uwsgi-fork-hooks = true\nenable-threads = true"}


@pytest.mark.parametrize("kind", UWSGI)
def test_uwsgi_from_an_ini_file(served, kind):
    kitchen = Kitchen(served)
    kitchen.file("uwsgi.ini", kitchen.filled_in("uwsgi.ini") + UWSGI[kind] + "\n")
    kitchen.serves(kitchen.shell("uwsgi"))


def test_supervisor(served):
    kitchen = Kitchen(served)
    pid = os.path.join(kitchen.srv, "shop.pid")
    control = os.path.join(kitchen.srv, "control")
    conf = kitchen.file("supervisor.conf", textwrap.dedent("""
        [supervisord]
        nodaemon=true
        logfile=/dev/null
        logfile_maxbytes=0
        pidfile=%(srv)s/supervisord.pid
        childlogdir=%(srv)s
        [unix_http_server]
        file=%(control)s
        [rpcinterface:supervisor]
        supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
        [supervisorctl]
        serverurl=unix://%(control)s
        """ % {"srv": kitchen.srv, "control": control}) + kitchen.filled_in("supervisor") + "stdout_logfile=%s\nstderr_logfile=%s\n" % (
            kitchen.out, kitchen.err))
    text = kitchen.printed(conf).replace("--workers 2", "--workers 2 --pid " + pid)
    kitchen.file("supervisor.conf", text)
    daemon = subprocess.Popen([sys.executable, os.path.join(BIN, "supervisord"), "-c", conf, "-u", "root"] if os.geteuid() == 0 else [
        sys.executable, os.path.join(BIN, "supervisord"), "-c", conf], cwd="/", env=kitchen.environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    served.cleanup.append(lambda: (daemon.terminate(), daemon.wait(30)))
    app = stack.Application(daemon, kitchen.port, kitchen.err).wait(60)

    def control_(*words):
        return subprocess.run([sys.executable, os.path.join(BIN, "supervisorctl"), "-c", conf] + list(words), stdout=subprocess.PIPE).stdout.decode()
    for _ in range(6):
        assert app.get("/")[0] == 200
    assert control_("pid", "shop").strip() == kitchen.printed(pid).strip()
    assert "started" in control_("restart", "shop")
    app.wait()
    for _ in range(6):
        assert app.get("/stock/3")[0] == 200
    assert "stopped" in control_("stop", "shop")
    kitchen.stored(12)


def settings_of(unit):
    return dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)


UNITS = {"systemd": "shop.service", "whatap-agent@.service": "whatap-agent@.service"}


@pytest.mark.parametrize("recipe", UNITS)
def test_systemd_takes_the_unit(served, recipe):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    kitchen = Kitchen(served)
    unit = kitchen.file(UNITS[recipe], kitchen.filled_in(recipe))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit.replace("@.", "@shop.")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    about = [line for line in done.stdout.decode().splitlines() if kitchen.srv in line or UNITS[recipe].split("@")[0] in line]
    assert (done.returncode, about) == (0, []), done.stdout.decode()


def test_systemd_with_one_agent_for_the_host(served):
    """An application joins the unit's agent and leaves it running; TERM ends it, everything sent."""
    kitchen = Kitchen(served)
    unit = settings_of(kitchen.filled_in("whatap-agent@.service").replace("/var/lib/whatap/%i", kitchen.home.directory))
    agent = subprocess.Popen(shlex.split(unit["ExecStart"]), cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
    served.cleanup.append(agent.kill)
    stack.wait_until("the agent", lambda: any(" started" in kitchen.printed(log) for log in glob.glob(kitchen.home.directory + "/logs/*.log")), 20)
    app = kitchen.shell("gunicorn")
    assert kitchen.home.pids("whatap_python") == [agent.pid]
    kitchen.serves(app)
    assert agent.poll() is None
    agent.terminate()
    assert agent.wait(30) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_systemd_in_the_sandbox_of_the_unit(served):
    """Everything read-only but the state directory, a /tmp of its own, another user, no new privileges; then TERM for all at once."""
    kitchen = Kitchen(served)
    unit = settings_of(kitchen.filled_in("systemd"))
    assert (unit["ProtectSystem"], unit["PrivateTmp"], unit["NoNewPrivileges"], unit["User"]) == ("strict", "yes", "yes", "shop")
    programs = served.programs_for_everybody()
    state, temporary = kitchen.home.directory, served.path("tmp")
    os.mkdir(temporary)
    os.chmod(temporary, 0o1777)
    for path in [state] + glob.glob(state + "/*"):
        os.chown(path, 61003, 61003)
    command = unit["ExecStart"].replace(BIN + "/gunicorn", " ".join(gunicorn_of_everybody())).replace(served.binaries, programs)
    script = """
        mount --make-rprivate /
        mount --bind {state} {state}
        mount --bind {tmp} {tmp}
        for place in $(findmnt -rno TARGET | grep -vE '^(/proc|/sys|/dev)(/|$)' | grep -vxF -e {state} -e {tmp}); do
            mount -o remount,bind,ro "$place" || :
        done
        if touch {srv}/written 2>/dev/null; then echo 'the sandbox leaks' >&2; exit 9; fi
        cd {srv}
        exec setpriv --reuid 61003 --regid 61003 --clear-groups --no-new-privs {command}
        """.format(state=state, tmp=temporary, srv=kitchen.srv, command=command)
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent", "USER": "shop",
           "TMPDIR": temporary, "STOCK_DB": ":memory:", "PYTHONPATH": site_packages()}
    name, _, value = unit["Environment"].partition("=")
    env[name] = value
    app = kitchen.start(["unshare", "--mount", "sh", "-c", script], env=env)
    for _ in range(12):
        assert app.get("/")[0] == 200
    os.killpg(app.process.pid, signal.SIGTERM)
    app.process.wait(30)
    kitchen.stored(12)


def gunicorn_of_everybody():
    python = "/usr/bin/python3"
    if not os.access(python, os.X_OK):
        pytest.skip("no interpreter that every user may run")
    return [python, "-m", "gunicorn"]


def site_packages():
    """The packages of the tests' environment, where users without access to it can read them."""
    import flask
    packages = os.path.dirname(os.path.dirname(flask.__file__))
    probe = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-c", "import flask, gunicorn"],
                           env={"PYTHONPATH": packages}, stderr=subprocess.PIPE)
    if probe.returncode:
        pytest.skip("no Flask for the system's Python: %s" % probe.stderr.decode().strip().splitlines()[-1])
    return packages


def test_sysv_init(served):
    kitchen = Kitchen(served)
    script = kitchen.file("shop", kitchen.filled_in("init"))
    os.chmod(script, 0o755)

    def service(verb):
        return subprocess.run([script, verb], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "STOCK_DB": os.path.join(kitchen.srv, "stock.sqlite3")},
                              cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pid = os.path.join(kitchen.home.directory, "shop.pid")
    started = service("start")
    served.cleanup.append(lambda: os.path.exists(pid) and service("stop"))
    assert (started.returncode, started.stdout, started.stderr) == (0, b"", b"")
    stack.wait_until("the daemon", lambda: os.path.exists(pid), 30)
    app = stack.Application(Running(int(kitchen.printed(pid))), kitchen.port, None).wait()
    assert service("status").returncode == 0
    for _ in range(12):
        assert app.get("/")[0] == 200
    assert service("stop").returncode == 0
    stack.wait_until("the end", lambda: app.process.poll() is not None, 30)
    open(kitchen.out, "w").close()
    open(kitchen.err, "w").close()
    kitchen.stored(12)


class Running:
    """A process that is nobody's child any more."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self):
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            self.returncode = 0
        return self.returncode


def test_upstart(served):
    kitchen = Kitchen(served)
    line = re.search(r"^exec .*$", kitchen.filled_in("upstart"), re.M).group(0)
    app = kitchen.start(["/bin/sh", "-e", "-c", line], cwd=kitchen.srv)
    # `expect fork` counts: the process has no child but gunicorn's workers.
    stack.wait_until("the workers", lambda: len(app.workers()) == 2, 30)
    kitchen.serves(app)


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_celery(served, pool):
    kitchen = Kitchen(served)
    kitchen.file("jobs.py", textwrap.dedent("""
        import celery
        app = celery.Celery("jobs", broker="filesystem://", broker_transport_options={
            "data_folder_in": %(srv)r + "/queue", "data_folder_out": %(srv)r + "/queue", "control_folder": %(srv)r + "/control"},
            result_backend="file://" + %(srv)r + "/results", broker_connection_retry_on_startup=True)

        @app.task
        def add(a, b):
            return a + b

        @app.task
        def fail():
            raise KeyError("no such order")

        @app.task(soft_time_limit=1)
        def long():
            while True:
                pass
        """ % {"srv": kitchen.srv}))
    for name in ("queue", "results", "control"):
        os.mkdir(os.path.join(kitchen.srv, name))
    env = kitchen.environment(C_FORCE_ROOT="1", PYTHONWARNINGS="ignore")
    app = kitchen.shell("celery", " --pool " + pool, env=env, wait=False)
    sent = textwrap.dedent("""
        import jobs
        results = [jobs.add.delay(number, 1) for number in range(10)] + [task.delay() for task in (%s)]
        print([result.get(timeout=60, propagate=False) for result in results])
        """ % ("jobs.fail, jobs.long" if pool == "prefork" else "jobs.fail,"))
    answer = subprocess.run([sys.executable, "-c", sent], cwd=kitchen.srv, env=env, stdout=subprocess.PIPE, check=True, timeout=90).stdout.decode()
    assert answer.startswith("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, KeyError('no such order')"), answer
    # Only processes can be interrupted.
    limited = int(pool == "prefork")
    assert answer.count("SoftTimeLimitExceeded") == limited
    app.stop(60)
    kitchen.stored(11 + limited, stdout=None)
    assert "whatap" not in kitchen.printed().replace(served.directory, "")
    assert [served.server.count(name=name) for name in ("jobs.add", "jobs.fail", "jobs.long")] == [10, 1, limited]
    error = served.server.transaction(served.server.transactions(name="jobs.fail")[0]["id"])["error"]
    assert (error["class"], error["frames"][-1]["function"]) == ("KeyError", "fail")


def test_cron(served):
    kitchen = Kitchen(served)
    kitchen.file("job.py", "import whatap\n@whatap.batch_profiling\ndef job():\n    pass\njob()\n")
    line = kitchen.filled_in("cron").strip().split(None, 5)[5]
    for _ in range(3):
        done = subprocess.run(["/bin/sh", "-c", line], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env={"HOME": served.path("user"), "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"})
        assert (done.returncode, done.stdout) == (0, b"")
    assert served.settled(3) == 3
    assert served.server.count(name="__main__:job") == 3


def test_apache_with_mod_wsgi(served):
    module = "/usr/lib/apache2/modules/mod_wsgi.so"
    if os.geteuid() != 0 or not os.path.exists(module):
        pytest.skip("needs root, Apache and mod_wsgi")
    kitchen = Kitchen(served)
    packages = site_packages()
    programs = served.programs_for_everybody()
    kitchen.file("shop.wsgi", "from stock import app as application\n")
    # The example's user is Debian's.
    import pwd
    user = pwd.getpwnam("www-data")
    for path in [kitchen.srv, kitchen.home.directory] + glob.glob(kitchen.home.directory + "/*"):
        os.chown(path, user.pw_uid, user.pw_gid)
    conf = kitchen.file("apache.conf", textwrap.dedent("""
        ServerRoot %(srv)s
        ServerName localhost
        Listen 127.0.0.1:%(port)d
        PidFile %(srv)s/apache.pid
        ErrorLog %(srv)s/error.log
        DefaultRuntimeDir %(srv)s
        User www-data
        Group www-data
        LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
        LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
        LoadModule wsgi_module %(module)s
        WSGISocketPrefix %(srv)s/wsgi
        <Directory %(srv)s>
        Require all granted
        </Directory>
        """ % {"srv": kitchen.srv, "port": kitchen.port, "module": module})
        + kitchen.filled_in("apache").replace("python-path=" + kitchen.srv, "python-path=%s:%s" % (kitchen.srv, packages)))
    variables = kitchen.filled_in("apache-envvars").replace(BIN, programs)
    app = kitchen.start(["sh", "-ec", variables + "exec apache2 -f %s -D FOREGROUND" % conf],
                        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C", "STOCK_DB": os.path.join(kitchen.srv, "stock.sqlite3")})
    for _ in range(12):
        assert app.get("/stock/3")[0] == 200, kitchen.printed(os.path.join(kitchen.srv, "error.log"))
    app.stop(30)
    kitchen.stored(12)
    assert "Traceback" not in kitchen.printed(os.path.join(kitchen.srv, "error.log"))


def test_docker(served):
    """The image is built into a plain directory, and its command is process 1."""
    kitchen = Kitchen(served, home=stack.Home(served.binaries, served.path("image")))
    served.cleanup.append(kitchen.home.stop)
    shutil.rmtree(kitchen.home.directory)
    env = kitchen.environment(WHATAP_SERVER_PORT=served.server.agents_port)
    entry, command, echoed = [], [], 0
    for line in kitchen.filled_in("docker").splitlines():
        verb, _, rest = line.partition(" ")
        if verb == "ENV":
            env.update([rest.split("=", 1)])
        elif verb == "RUN" and not rest.startswith("pip "):
            subprocess.run(["/bin/sh", "-c", rest], env=env, check=True)
            echoed += rest.startswith("echo ")
        elif verb == "ENTRYPOINT":
            entry = json.loads(rest)
        elif verb == "CMD":
            command = json.loads(rest)
    assert echoed == 4
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"] if os.geteuid() == 0 else []
    app = kitchen.start(namespace + entry + command, env=env, cwd=kitchen.srv)
    for _ in range(12):
        assert app.get("/")[0] == 200
    first = app.workers()[0] if namespace else app.process.pid
    os.kill(first, signal.SIGTERM)                  # `docker stop`
    app.process.wait(30)
    kitchen.stored(12)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_kubernetes_without_a_launcher(served):
    kitchen = Kitchen(served)
    volume = served.path("whatap-agent")
    shutil.copytree(kitchen.package(), volume + "/whatap", ignore=shutil.ignore_patterns("__pycache__"))
    os.makedirs(volume + "/whatap/bin")
    shutil.copy(os.path.join(served.binaries, "whatap_python"), volume + "/whatap/bin")
    env = {"PATH": "/usr/bin:/bin", "HOME": served.path("nobody"), "LANG": "C.UTF-8", "STOCK_DB": ":memory:", "WHATAP_SERVER_PORT": str(served.server.agents_port),
           "TMPDIR": served.path("tmp")}
    os.mkdir(env["TMPDIR"])
    os.chmod(env["TMPDIR"], 0o1777)
    for name, value in re.findall(r"\{name: (\w+), value: (\S+)\}", kitchen.filled_in("kubernetes")):
        env[name] = value.replace("/whatap-agent", volume)
    env["PYTHONPATH"] += ":" + site_packages()
    served.cleanup.append(lambda: subprocess.run([os.path.join(served.binaries, "whatap-stop-agent"), "--all"], stdout=subprocess.DEVNULL,
                                                 stderr=subprocess.DEVNULL, env=dict(env, WHATAP_HOME=volume), user=61007, group=61007, extra_groups=[]))
    served.cleanup.insert(0, lambda: shutil.rmtree("/tmp/whatap-61007", ignore_errors=True))
    app = kitchen.start(["setpriv", "--reuid", "61007", "--regid", "61007", "--clear-groups"] + gunicorn_of_everybody() + [
        "--bind", "127.0.0.1:%d" % kitchen.port, "--workers", "2", "stock:app"], env=env, cwd=kitchen.srv)
    kitchen.serves(app, paths=("/",))
    assert served.server.count(service="shop") == 12


def test_code_start(served):
    kitchen = Kitchen(served)
    kitchen.file("stock.py", kitchen.filled_in("code") + kitchen.printed(os.path.join(kitchen.srv, "stock.py")))
    env = kitchen.environment(PYTHONPATH=os.path.dirname(kitchen.package()), WHATAP_HOME=None)
    app = kitchen.start(["gunicorn", "--bind", "127.0.0.1:%d" % kitchen.port, "--workers", "2", "stock:app"], env=env, cwd=kitchen.srv)
    kitchen.serves(app)


def test_two_applications_with_two_homes(served):
    one, two = Kitchen(served, home=served.home("one")), Kitchen(served, home=served.home("two"))
    apps = [one.shell("gunicorn"), two.shell("gunicorn")]
    assert len(one.home.pids("whatap_python")) == len(two.home.pids("whatap_python")) == 1
    for _ in range(6):
        assert [app.get("/")[0] for app in apps] == [200, 200]
    apps[0].stop()
    assert one.home.stop() == 0
    assert two.home.pids("whatap_python")
    for _ in range(6):
        assert apps[1].get("/")[0] == 200
    apps[1].stop()
    one.stored(18)
    assert two.printed() == ""


def test_two_programs_with_one_home(served):
    home = served.home()
    one, two = Kitchen(served, home=home), Kitchen(served, "django_shop", home=home)
    apps = [one.shell("gunicorn", env=one.environment(WHATAP_APP_NAME="one")),
            two.shell("uvicorn", " --log-level warning", env=two.environment(WHATAP_APP_NAME="two"))]
    for _ in range(6):
        assert [apps[0].get("/")[0], apps[1].get("/health")[0]] == [200, 200]
    assert len(home.pids("whatap_python")) == 1
    apps[0].stop()
    for _ in range(6):
        assert apps[1].get("/health")[0] == 200
    apps[1].stop()
    one.stored(18)
    assert {name: served.server.count(service=name) for name in ("one", "two")} == {"one": 6, "two": 12}
    assert shlex.split(two.printed()) == []
