"""Checks of the launcher suite that need the whole path. Tests named l11, l15, … are the numbered checks; those that need no server are in
crates/whatap/tests, those about users in test_users.py, those about configuration and logs in test_config.py."""
import os
import signal
import subprocess
import sys

import pytest

from conftest import APPS, Load
import stack

PLAIN = """
import whatap

@whatap.register_app
def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'plain']
"""


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return path


def conf(scene, *lines):
    """A home whose file holds these lines and nothing else."""
    home = scene.home()
    write(home.directory + "/whatap.conf", "".join(line + "\n" for line in lines))
    return home


def address(server):
    return ["license=" + server.licence, "whatap.server.host=127.0.0.1", "whatap.server.port=%d" % server.agents_port]


def finished(process, status=0):
    """(stdout, stderr) of a process that must end with this status."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, (process.returncode, out, err)
    return out, err


def test_l11_a_killed_collector_is_back_and_nobody_noticed(served):
    home = served.home()
    app = served.flask(home)
    with Load(app) as load:
        stack.wait_until("requests", lambda: load.answered > 20)
        before = home.pids("whatap_python")
        assert len(before) == 1
        os.kill(before[0], signal.SIGKILL)
        after = stack.wait_until("the new collector", lambda: [pid for pid in home.pids("whatap_python") if pid not in before], 20)
        seen = load.answered
        stack.wait_until("more requests", lambda: load.answered > seen + 20)
    assert len(after) == 1
    assert (load.broken, load.wrong) == (0, [])
    assert served.settled(load.answered) == load.answered
    with open(app.log, "rb") as log:
        assert b"Traceback" not in log.read()
    for pid in app.workers():
        with open("/proc/%d/stat" % pid) as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
        assert rest.split()[0] != "Z" and not name.startswith("whatap"), (name, rest)


def test_l15_four_echoed_keys_are_enough(served):
    home = conf(served, *address(served.server)[:2] + ["app_name=docker", "app_process_name=web", "whatap.server.port=%d" % served.server.agents_port])
    app = served.gunicorn("flask_stock", "stock:app", home, "docker", {"STOCK_DB": served.path("stock.sqlite3")})
    assert app.get("/")[0] == 200
    assert served.settled(1) == 1
    assert served.server.transactions()[0]["service"] == "docker"


def test_l16_a_file_of_an_older_release_is_enough(served):
    home = conf(served, "# whatap.conf", "", *address(served.server) + ["app_name=old", "app_process_name=python", "", "net_udp_port=6600"])
    app = served.gunicorn("flask_stock", "stock:app", home, "old", {"STOCK_DB": served.path("stock.sqlite3")})
    assert app.get("/")[0] == 200
    assert served.settled(1) == 1


def test_a_configuration_in_the_environment_alone_is_enough(served):
    home = conf(served)
    os.unlink(home.directory + "/whatap.conf")
    keys = {"license": served.server.licence, "whatap_server_host": "127.0.0.1", "WHATAP_SERVER_PORT": str(served.server.agents_port), "app_name": "env"}
    app = served.gunicorn("flask_stock", "stock:app", home, "env", dict(keys, STOCK_DB=served.path("stock.sqlite3")))
    assert app.get("/")[0] == 200
    assert served.settled(1) == 1
    assert os.listdir(home.directory).count("whatap.conf") == 0
    for program in ("whatap_python", "whatap_watch"):
        for pid in home.pids(program):
            with open("/proc/%d/environ" % pid, "rb") as file:
                assert served.server.licence.encode() not in file.read()


def test_l19_the_last_request_before_sigterm_arrives(served):
    app = served.flask(served.home())
    assert app.get("/")[0] == 200
    app.stop()
    assert served.settled(1) == 1


FORKS = """
import os, sys, whatap

@whatap.method_profiling
def work():
    return os.getpid()

work()
for _ in range(3):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    os.waitpid(child, 0)
"""

POOL = """
import multiprocessing, whatap

@whatap.method_profiling
def work(number):
    return number

if __name__ == '__main__':
    multiprocessing.set_start_method('fork')
    work(0)
    children = [multiprocessing.Process(target=work, args=(n,)) for n in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
"""


@pytest.mark.parametrize("program", [FORKS, POOL], ids=["os.fork", "multiprocessing"])
def test_l26_children_report_though_the_parent_did_before(served, program):
    home = served.home()
    file = write(served.path("forks.py"), program)
    assert finished(home.launch(sys.executable, file)) == (b"", b"")
    assert served.settled(4) == 4


def test_l26_gunicorn_preload_after_a_transaction(served):
    home = served.home()
    directory = served.path("preloaded")
    os.mkdir(directory)
    write(directory + "/preloaded.py", PLAIN + "\nlist(app({'REQUEST_METHOD': 'GET', 'PATH_INFO': '/before'}, lambda *a: None))\n")
    app = stack.Application.gunicorn(sys.executable, directory, "preloaded:app", home, arguments=["--preload"], log=served.path("preloaded.log"))
    served.cleanup.append(app.stop)
    app.wait()
    for _ in range(5):
        assert app.get("/after") == (200, b"plain")
    assert served.settled(6) == 6
    assert served.server.count(name="/before") == 1


def test_l27_an_application_that_answers_nothing_is_called_once(served):
    home = served.home()
    file = write(served.path("empty.py"), """
import whatap
calls = []

@whatap.register_app
def app(environ, start_response):
    calls.append(environ['PATH_INFO'])
    start_response('204 No Content', [])
    return []

answer = app({'REQUEST_METHOD': 'GET', 'PATH_INFO': '/empty'}, lambda *a: None)
print(list(answer), calls)
""")
    assert finished(home.launch(sys.executable, file)) == (b"[] ['/empty']\n", b"")
    assert served.settled(1) == 1


JOB = """
import sys, whatap
ran = []

@whatap.batch_profiling
def nightly():
    ran.append(1)
    if len(sys.argv) > 1:
        raise ValueError(sys.argv[1])

try:
    nightly()
finally:
    print(len(ran))
"""


def test_l28_a_job_reports_to_the_batch_agent_without_a_launcher(served):
    home = served.home("batch")
    environment = stack.clean_environment(WHATAP_HOME_BATCH=home.directory, PATH=served.binaries + os.pathsep + os.environ["PATH"],
                                          PYTHONPATH=os.path.join(stack.ROOT, "bootstrap"), PYTHONDONTWRITEBYTECODE="1")
    def run(*words):
        return subprocess.run(words, env=environment, cwd=served.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    started = run("whatap-start-batch-agent")
    assert (started.returncode, started.stdout, started.stderr) == (0, b"started %s\n" % home.directory.encode(), b"")
    job = write(served.path("job.py"), JOB)
    done = run(sys.executable, job)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n", b"")
    # No wait here: a job's data has been handed on before it ends.
    failed = run(sys.executable, job, "broken")
    assert (failed.returncode, failed.stdout) == (1, b"1\n")
    assert failed.stderr.strip().endswith(b"ValueError: broken")
    assert served.settled(2) == 2
    assert {row["name"] for row in served.server.transactions()} == {"__main__:nightly"}
    assert run("whatap-stop-agent", "--batch").returncode == 0


def test_a_jobs_data_is_on_the_server_when_the_job_has_ended(served):
    home = served.home()
    job = write(served.path("job.py"), JOB + "\nimport os\nos._exit(0)\n")
    assert finished(home.launch(sys.executable, job)) == (b"", b"")
    assert served.server.count() == 1


def test_scripts_and_management_commands_are_transactions_when_asked_for(served):
    home = served.home(standalone_enabled="true")
    script = write(served.path("nightly.py"), "import sqlite3\nsqlite3.connect(':memory:').execute('select 1')\nprint('done')\n")
    crontab = "%s/whatap-start-agent %s %s" % (served.binaries, sys.executable, script)
    environment = {"HOME": served.directory, "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", "WHATAP_HOME": home.directory}
    line = subprocess.run(["/bin/sh", "-c", crontab], env=environment, cwd=served.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert (line.returncode, line.stdout, line.stderr) == (0, b"done\n", b"")
    database = {"DATABASE_URL": "sqlite:///" + served.path("shop.sqlite3")}
    finished(home.launch(sys.executable, "manage.py", "migrate", "--verbosity", "0", cwd=os.path.join(APPS, "django_shop"), env=database))
    assert served.settled(2) == 2
    rows = {row["name"]: row for row in served.server.transactions()}
    assert set(rows) == {"nightly.py", "manage.py migrate"}
    assert rows["nightly.py"]["sql_count"] == 1 and rows["manage.py migrate"]["sql_count"] > 5
