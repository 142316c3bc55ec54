"""whatap.conf is edited while the application serves: what changes at once changes in every process, without a restart."""
import os

from conftest import Load
import stack


def write(home, **options):
    """Puts these options below what the home was made with; the ones of an earlier call are gone."""
    path = os.path.join(home.directory, "whatap.conf")
    with open(path) as file:
        kept = file.read().split("# edited\n")[0]
    text = kept + "# edited\n" + "".join("%s=%s\n" % pair for pair in options.items())
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


class Requests:
    """Requests to one path, and how many of them became transactions."""

    def __init__(self, scene, app, path, name):
        self.scene, self.app, self.path, self.name = scene, app, path, name

    def stored_of(self, sent):
        """Both workers get their share. The marker comes after them, in the same rings."""
        before, marks = self.scene.server.count(name=self.name), self.scene.server.count(name="/")
        for _ in range(sent):
            assert self.app.get(self.path)[0] == 200
        for _ in range(sent):
            assert self.app.get("/") == (200, b"hello")
        stack.wait_until("the markers", lambda: self.scene.server.count(name="/") >= marks + sent, 20, 0.1)
        return self.scene.server.count(name=self.name) - before


def test_paths_are_ignored_as_soon_as_the_file_says_so_and_seen_again_when_the_line_is_gone(served):
    home = served.home()
    app = served.flask(home)
    stock = Requests(served, app, "/stock/7", "/stock/<int:sku>")
    assert stock.stored_of(6) == 6
    write(home, trace_ignore_url_set="/stock/7,/nothing")
    stack.wait_until("no transaction of an ignored path", lambda: stock.stored_of(6) == 0, 30)
    other = Requests(served, app, "/stock/8", "/stock/<int:sku>")
    assert other.stored_of(6) == 6
    write(home)
    stack.wait_until("all of them again", lambda: stock.stored_of(6) == 6, 30)


def test_tracing_is_switched_off_and_on_in_running_processes(served):
    home = served.home()
    app = served.flask(home)
    with_tracing = Requests(served, app, "/stock/7", "/stock/<int:sku>")
    assert with_tracing.stored_of(4) == 4
    write(home, enabled="false")

    def silent():
        before = served.server.count()
        for _ in range(8):
            assert app.get("/stock/7")[0] == 200
        return served.settled(before + 1, timeout=2) == before
    stack.wait_until("no transaction at all", silent, 30)
    write(home)

    def traced():
        before = served.server.count()
        for _ in range(8):
            assert app.get("/stock/7")[0] == 200
        return served.settled(before + 8, timeout=5) == before + 8
    stack.wait_until("every one of them again", traced, 30)


def test_the_collectors_own_options_change_with_the_file(served):
    home = served.home(profile_rate=0)
    app = served.flask(home)

    def profiles():
        """Of a burst of transactions, of which a quiet second's worth keep their steps in any case: how many do."""
        before = served.server.count(name="/sql")
        with Load(app, paths=("/sql?n=2",), threads=4, pause=0) as load:
            stack.wait_until("many requests", lambda: load.answered > 200, 30)
        sent = load.answered
        stack.wait_until("the transactions", lambda: served.server.count(name="/sql") == before + sent, 30, 0.1)
        newest = served.server.transactions(name="/sql", limit=sent)
        return sum(row["has_profile"] for row in newest) / sent
    profiles()
    assert profiles() < 0.9
    write(home, profile_basetime=0)
    stack.wait_until("the steps of every transaction", lambda: profiles() == 1, 60)
    write(home)
    stack.wait_until("the default again", lambda: profiles() < 0.9, 60)


def test_debug_makes_the_log_tell_more_while_it_is_on(served):
    home = served.home()
    app = served.flask(home, workers=1)
    assert app.get("/") == (200, b"hello")

    def log():
        directory = os.path.join(home.directory, "logs")
        found = ""
        for name in sorted(os.listdir(directory)):
            if name.startswith("whatap-boot"):
                with open(os.path.join(directory, name)) as file:
                    found += file.read()
        return found
    worker, = app.workers()
    write(home, debug="true")
    stack.wait_until("the options in the log", lambda: "pid %d is told new options" % worker in log(), 30)
    os.kill(worker, 9)
    stack.wait_until("the account in the log", lambda: "pid %d ended: 1 transactions, 0 lost" % worker in log(), 30)
