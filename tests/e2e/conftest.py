"""Scene of the end-to-end tests: the installed programs, a server of one's own, applications under the launcher."""
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import threading

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts", "lib"))
import stack  # noqa: E402

APPS = os.path.join(ROOT, "tests", "apps")


class Scene:
    """A directory with a server, homes and applications in it. What it started it stops, in the opposite order."""

    def __init__(self, directory):
        self.directory = directory
        self.binaries = stack.binaries()
        self.server = stack.Server(self.binaries, os.path.join(directory, "server"))
        self.cleanup = []

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def start_server(self):
        self.server.start()
        self.cleanup.append(lambda: self.server.process.poll() is None and self.server.stop())
        return self.server

    def home(self, name="home", **options):
        options.setdefault("agent_linger_sec", 60)
        home = stack.Home(self.binaries, self.path(name), self.server, **options)
        self.cleanup.append(home.stop)
        return home

    def flask(self, home=None, name="stock", **more):
        environment = {"STOCK_DB": self.path("stock.sqlite3"), "WHATAP_APP_NAME": name}
        environment.update(more.pop("env", {}))
        return self.gunicorn("flask_stock", "stock:app", home, name, environment, **more)

    def django(self, home=None, name="shop", **more):
        environment = {"DATABASE_URL": "sqlite:///" + self.path("shop.sqlite3"), "WHATAP_APP_NAME": name}
        environment.update(more.pop("env", {}))
        if not os.path.exists(self.path("shop.sqlite3")) or not environment["DATABASE_URL"].startswith("sqlite"):
            for command in (["migrate", "--verbosity", "0"], ["seed"]):
                subprocess.run([more.get("python", sys.executable), "manage.py"] + command, cwd=os.path.join(APPS, "django_shop"), check=True,
                               stdout=subprocess.DEVNULL, env=stack.clean_environment(**environment))
        return self.gunicorn("django_shop", "shop.wsgi:application", home, name, environment, **more)

    def gunicorn(self, directory, target, home, name, environment, python=sys.executable, **more):
        log = self.path("%s%s.log" % (name, "" if home else "-bare"))
        application = stack.Application.gunicorn(python, os.path.join(APPS, directory), target, home, log=log, env=environment, **more)
        self.cleanup.append(application.stop)
        return application.wait()

    def programs_for_everybody(self):
        """A directory with copies of the programs, wherever the build lies: other users may run them."""
        programs = self.path("programs")
        if not os.path.isdir(programs):
            os.mkdir(programs)
            for name in ("whatap-start-agent", "whatap-stop-agent", "whatap-setting-config", "whatap-doctor", "whatap_python"):
                shutil.copy(os.path.join(self.binaries, name), programs)
        return programs

    def settled(self, expected, timeout=20.0, **filters):
        """Waits until `expected` transactions are stored or reported lost, then a little longer for what must not come."""
        def enough():
            return self.server.count(**filters) + self.server.lost() >= expected
        try:
            stack.wait_until("%d transactions" % expected, enough, timeout, 0.2)
        except stack.Failed:
            pass
        threading.Event().wait(1.0)
        return self.server.count(**filters)


class Load:
    """Requests from a few threads with connections kept open; knows what was answered."""

    def __init__(self, application, paths=("/stock/7", "/", "/sql?n=3"), threads=4, pause=0.002):
        self.application, self.paths, self.pause = application, paths, pause
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.answers = {}
        self.answered = self.broken = 0
        self.wrong = []
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(threads)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join(30)

    def work(self):
        while not self.ended.wait(self.pause):
            for path in self.paths:
                try:
                    answer = self.application.get(path)
                except (OSError, http.client.HTTPException):
                    with self.lock:
                        self.broken += 1
                    continue
                with self.lock:
                    self.answered += 1
                    expected = self.answers.setdefault(path, answer)
                    if answer != expected:
                        self.wrong.append((path, answer))


@pytest.fixture
def scene(request):
    directory = tempfile.mkdtemp(prefix="whatap-e2e-")
    os.chmod(directory, 0o755)
    scene = Scene(directory)
    yield scene
    for step in reversed(scene.cleanup):
        try:
            step()
        except Exception as error:                  # the next step must still run
            print("cleanup: %s" % error)
    if os.environ.get("WHATAP_KEEP"):
        print("kept:", directory)
    else:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def served(scene):
    """A scene whose server is up."""
    scene.start_server()
    return scene
