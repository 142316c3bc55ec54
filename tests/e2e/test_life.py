"""The life of the collector with real programs: homes that are read-only, foreign, open or missing; logs and their codes; an upgrade."""
import glob
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import urllib.parse

import pytest
import stack
from conftest import Load

USER, OTHER = 61011, 61012
LICENCE = "x21og000g40o4-xa1g7104gk2oc-xq3gf00000000"

# One that every user may run.
PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
root_only = pytest.mark.skipif(os.geteuid() != 0 or PYTHON is None, reason="needs other users and a Python for all of them")

# One transaction, and it says whether it was handed over.
ONE = r"""
import sys, time
import whatap
@whatap.method_profiling
def work():
    time.sleep(0.01)
for _ in range(3):
    work()
sys.stdout.write('done\n')
"""


class User:
    """Programs of ours as another user, in a home that somebody prepared."""

    def __init__(self, scene, home, uid=None, **env):
        self.scene, self.home, self.uid = scene, home, uid
        self.binaries = readable_copy(scene) if uid else scene.binaries
        self.runtime = scene.path("runtime-%s" % uid)
        if uid and not os.path.isdir(self.runtime):
            os.mkdir(self.runtime, 0o700)
            os.chown(self.runtime, uid, uid)
        self.env = stack.clean_environment(WHATAP_HOME=home, WHATAP_LOCAL_SERVER="false", XDG_RUNTIME_DIR=self.runtime, HOME=self.runtime, **env)
        scene.cleanup.append(lambda: self.run("whatap-stop-agent", "--timeout", "5", "--force"))

    def run(self, program, *words, env=None):
        setpriv = ["setpriv", "--reuid", str(self.uid), "--regid", str(self.uid), "--clear-groups"] if self.uid else []
        return subprocess.run(setpriv + [os.path.join(self.binaries, program)] + list(words), env=dict(self.env, **(env or {})), cwd="/", timeout=90,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)

    def traced(self, **more):
        """A traced program runs as it does alone."""
        did = self.run("whatap-start-agent", PYTHON if self.uid else sys.executable, "-c", ONE, **more)
        assert (did.returncode, did.stdout) == (0, "done\n"), did
        return did

    def logs(self, directory=None):
        """Everything in the logs, wherever they are."""
        text = ""
        for place in [directory] if directory else [self.home, self.runtime]:
            for path in sorted(glob.glob(place + "/**/whatap-*.log", recursive=True)):
                with open(path, errors="replace") as file:
                    text += file.read()
        return text

    def says(self, words, directory=None):
        stack.wait_until(words, lambda: words in self.logs(directory), 30)


def readable_copy(scene):
    """The programs and the tracer where every user may read them, and nobody but us write."""
    directory = scene.path("bin")
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o755)
        for name in os.listdir(scene.binaries):
            path = os.path.join(scene.binaries, name)
            if name.startswith("whatap") and "." not in name and os.path.isfile(path):
                shutil.copy(path, directory)
                os.chmod(os.path.join(directory, name), 0o755)
    return directory


def home_of(scene, uid=None, mode=0o755, conf="", name="home"):
    directory = scene.path(name)
    os.mkdir(directory)
    if conf is not None:
        path = os.path.join(directory, "whatap.conf")
        with open(path, "w") as file:
            file.write(conf)
        os.chmod(path, 0o644)
        if uid:
            os.chown(path, uid, uid)
    if uid:
        os.chown(directory, uid, uid)
    os.chmod(directory, mode)
    return directory


def reports_to(server):
    return "license=%s\nwhatap.server.host=127.0.0.1\nwhatap.server.port=%d\nagent_linger_sec=1\n" % (server.licence, server.agents_port)


# --- homes

@root_only
@pytest.mark.parametrize("what", ["owned by root and closed", "owned by another", "open to everybody", "below a directory that everybody may rename"])
def test_a_home_that_cannot_be_trusted_or_written_costs_no_transaction(served, what):
    conf = reports_to(served.server)
    if what == "owned by root and closed":
        home = home_of(served, conf=conf)
    elif what == "owned by another":
        home = home_of(served, OTHER, conf=conf)
    elif what == "open to everybody":
        home = home_of(served, USER, 0o777, conf=conf)
    else:
        os.mkdir(served.path("shared"))
        os.chmod(served.path("shared"), 0o777)
        home = home_of(served, USER, conf=conf, name="shared/home")
    before = sorted(os.listdir(home))
    user = User(served, home, USER)
    user.traced()
    assert served.settled(3) == 3
    # Nothing was written there, and what was written elsewhere is nobody else's.
    assert sorted(os.listdir(home)) == before
    user.says("LOG FILE ERROR " + home, user.runtime)
    private = user.runtime + "/whatap"
    made = [os.path.join(where, name) for where, directories, files in os.walk(private) for name in directories + files]
    assert [path for path in made if path.endswith("/spool")]
    for path in made:
        status = os.lstat(path)
        assert status.st_uid == USER and status.st_mode & 0o007 == 0, path


@root_only
def test_without_any_safe_place_data_waits_in_memory_and_nothing_is_followed(served):
    home = home_of(served, USER, 0o777, conf=reports_to(served.server))
    trap = served.path("trap")
    os.mkdir(trap)
    os.chmod(trap, 0o777)
    os.symlink(trap, home + "/spool")
    os.symlink(trap, home + "/logs")
    user = User(served, home, USER)
    os.chmod(user.runtime, 0o777)
    shared = "/tmp/whatap-%d" % USER
    os.symlink(trap, shared)
    served.cleanup.append(lambda: os.remove(shared))
    user.traced()
    assert served.settled(3) == 3
    assert os.listdir(trap) == []


def test_a_missing_home_is_one_line(scene):
    user = User(scene, scene.path("nowhere"))
    did = user.traced()
    assert did.stderr.count("\n") == 1 and scene.path("nowhere") in did.stderr
    assert not os.path.exists(scene.path("nowhere"))


@root_only
def test_a_home_on_a_full_disk_costs_no_transaction_while_the_server_is_there(served):
    home = served.path("home")
    os.mkdir(home)
    script = "mount -t tmpfs -o size=64k,mode=755 tmpfs %s && cp %s %s/whatap.conf && (head -c 1000000 /dev/zero >%s/filler 2>/dev/null; true) && exec \"$@\""
    conf = served.path("conf")
    with open(conf, "w") as file:
        file.write(reports_to(served.server))
    user = User(served, home)
    program = os.path.join(served.binaries, "whatap-start-agent")
    did = subprocess.run(["unshare", "--mount", "sh", "-c", script % (home, conf, home, home), "sh", program, sys.executable, "-c", ONE],
                         env=user.env, cwd="/", timeout=90, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert (did.returncode, did.stdout) == (0, "done\n"), did
    assert served.settled(3) == 3


# --- codes and logs

@root_only
def test_l21_conf_read_error(scene):
    home = home_of(scene, USER, conf="app_name=shop\n")
    os.chmod(home + "/whatap.conf", 0)
    os.chown(home + "/whatap.conf", 0, 0)
    user = User(scene, home, USER)
    did = user.traced()
    assert did.stderr.count("\n") == 1 and home + "/whatap.conf" in did.stderr
    user.says("CONF READ ERROR %s/whatap.conf: cannot be read: permission denied" % home, home)


@root_only
def test_l21_conf_file_error(scene):
    home = home_of(scene, conf=None)
    user = User(scene, home, USER)
    did = user.run("whatap-setting-config", "--app_name", "shop")
    assert did.returncode == 73 and home + "/whatap.conf" in did.stderr, did
    user.says("CONF FILE ERROR", user.runtime)
    assert home + "/whatap.conf" in [line for line in user.logs().splitlines() if "CONF FILE ERROR" in line][0]


@root_only
def test_l21_log_file_error(scene):
    home = home_of(scene)
    user = User(scene, home, USER)
    user.traced()
    user.says("LOG FILE ERROR %s/logs: Permission denied" % home, user.runtime)


@root_only
def test_l21_logging_error(scene):
    home = home_of(scene, USER)
    os.mkdir(home + "/logs", 0o755)
    user = User(scene, home, USER)
    user.traced()
    user.says("LOGGING ERROR %s/logs: " % home, user.runtime)
    assert os.listdir(home + "/logs") == []


def test_l21_license_or_host(served):
    home = home_of(served, conf="license=%s\nwhatap.server.host=127.0.0.1\nwhatap.server.port=%d\n" % (LICENCE, served.server.agents_port))
    user = User(served, home)
    user.traced()
    user.says("does not know this licence")
    assert "license or whatap.server.host" in user.logs(home)
    served.server.stop()
    with open(home + "/whatap.conf", "a") as file:
        file.write("app_name=changed\n")
    user.says("connection refused")
    assert LICENCE[5:] not in user.logs(home)


def test_l22_logs_older_than_the_option_says_are_gone_without_a_restart(scene):
    home = home_of(scene)
    user = User(scene, home)
    user.traced()
    user.says("started for", home)
    logs = home + "/logs/"
    old = ["whatap-boot-20200101.log", "whatap-hook-20200101.log"]
    recent = ["whatap-boot-%s.log" % time.strftime("%Y%m%d", time.gmtime(time.time() - days * 86400)) for days in (1, 3)]
    for name in old + recent + ["mine-20200101.log"]:
        with open(logs + name, "w") as file:
            file.write("x\n")
    with open(home + "/whatap.conf", "w") as file:
        file.write("log_keep_days=1\n")
    stack.wait_until("the old logs' end", lambda: not set(old + recent[1:]) & set(os.listdir(logs)))
    assert {recent[0], "mine-20200101.log"} <= set(os.listdir(logs))
    # And without a file for each day.
    with open(home + "/whatap.conf", "w") as file:
        file.write("log_rotation_enabled=false\nprofile_rate=1\n")
    stack.wait_until("the one log", lambda: os.path.exists(logs + "whatap-boot.log"))


def test_a_log_that_somebody_planted_is_not_written_through(scene):
    home = home_of(scene)
    victim = scene.path("victim")
    with open(victim, "w") as file:
        file.write("mine\n")
    os.mkdir(home + "/logs", 0o750)
    today = time.strftime("%Y%m%d", time.gmtime())
    os.symlink(victim, home + "/logs/whatap-boot-%s.log" % today)
    os.mkfifo(home + "/logs/whatap-hook.log")
    User(scene, home).traced()
    with open(victim) as file:
        assert file.read() == "mine\n"
    assert stat.S_ISFIFO(os.lstat(home + "/logs/whatap-hook.log").st_mode)


# --- an upgrade

def status(home, binaries):
    """The instance's answer about itself."""
    environment = home.environment()
    text = subprocess.run([os.path.join(binaries, "whatap-start-agent"), "sh", "-c", "echo $WHATAP_LAUNCH"], env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=60).stdout
    name = [pair[6:] for pair in text.strip().split(";") if pair.startswith("_name=")][0]
    return ask(name)


def ask(name):
    def answer():
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(10)
            try:
                connection.connect("\0" + name)
                connection.send(b"status\n")
                lines = connection.recv(65536).decode().split("\n")
            except OSError:
                return None
        return {key: urllib.parse.unquote(value) for key, _, value in (line.partition("=") for line in lines[1:]) if key}
    return stack.wait_until("a status", answer)


def test_an_upgrade_under_load_takes_over_at_the_next_start_and_loses_nothing(served):
    old = served.binaries
    upgraded = served.path("upgraded")
    os.mkdir(upgraded)
    for name in os.listdir(old):
        path = os.path.join(old, name)
        if name.startswith("whatap") and "." not in name and os.path.isfile(path):
            shutil.copy(path, upgraded)
    program = os.path.join(upgraded, "whatap_python")
    with open(program, "rb") as file:
        image = file.read()
    version = subprocess.run([program, "--version"], stdout=subprocess.PIPE, universal_newlines=True).stdout.split()[1]
    later = "9" + version[1:]
    with open(program, "wb") as file:
        file.write(image.replace(version.encode(), later.encode()))

    def collector():
        return os.readlink("/proc/%s/exe" % status(home, old)["pid"])

    home = served.home()
    application = served.flask(home)
    assert status(home, old)["version"] == version
    assert collector() == os.path.realpath(os.path.join(old, "whatap_python"))
    with Load(application) as load:
        stack.wait_until("requests", lambda: load.answered > 200)
        assert subprocess.run([os.path.join(upgraded, "whatap-start-agent"), "true"], env=home.environment()).returncode == 0
        stack.wait_until("the newer version", lambda: collector() == os.path.realpath(program))
        before = load.answered
        stack.wait_until("more requests", lambda: load.answered > before + 200)
    assert not load.broken and not load.wrong
    found = served.settled(load.answered)
    assert (found, served.server.lost()) == (load.answered, 0)
    programs = {os.readlink("/proc/%d/exe" % pid) for pid in home.pids("whatap_python")}
    assert programs == {os.path.realpath(program)}
    assert home.stop() == 0


# --- where the configuration comes from, and when it changes

def environment_of(server):
    return {"WHATAP_LICENSE": server.licence, "WHATAP_SERVER_HOST": "127.0.0.1", "WHATAP_SERVER_PORT": str(server.agents_port)}


def test_a_licence_that_only_the_environment_knows_is_enough_and_is_seen_by_nobody(served):
    home = home_of(served, conf=None)
    user = User(served, home, **environment_of(served.server))
    user.traced(env={"WHATAP_APP_NAME": "env-only"})
    assert served.settled(3, service="env-only") == 3
    launch = user.run("whatap-start-agent", "sh", "-c", "echo $WHATAP_LAUNCH")
    assert served.server.licence not in launch.stdout
    assert served.server.licence not in user.logs(home)
    name = [pair[6:] for pair in launch.stdout.strip().split(";") if pair.startswith("_name=")][0]
    about = ask(name)
    for pid in (about["pid"], about["watch_pid"]):
        with open("/proc/%s/environ" % pid, "rb") as file:
            assert served.server.licence.encode() not in file.read()
        with open("/proc/%s/cmdline" % pid, "rb") as file:
            assert served.server.licence.encode() not in file.read()


def test_a_sidecar_takes_its_configuration_from_the_environment_too(served):
    home = home_of(served, conf=None)
    user = User(served, home, **environment_of(served.server))
    sidecar = subprocess.Popen([os.path.join(user.binaries, "whatap_python"), "--foreground"], env=user.env, cwd="/", stderr=subprocess.PIPE)
    served.cleanup.append(sidecar.kill)
    user.says("started for " + home, home)
    bare = {key: "" for key in environment_of(served.server)}
    user.traced(env=dict(bare, WHATAP_APP_NAME="side"))
    assert served.settled(3, service="side") == 3
    sidecar.terminate()
    assert sidecar.wait(30) == 0
    user.says("left, everything sent", home)


TALKER = r"""
import sys
import whatap
@whatap.method_profiling
def work():
    pass
for line in iter(sys.stdin.readline, ''):
    work()
    sys.stdout.write('done\n'); sys.stdout.flush()
"""


def test_a_new_name_of_the_application_counts_while_it_runs(served):
    home = home_of(served, conf=reports_to(served.server) + "app_name=before\n")
    user = User(served, home)
    application = subprocess.Popen([os.path.join(user.binaries, "whatap-start-agent"), sys.executable, "-c", TALKER], env=user.env, cwd="/", bufsize=0,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    served.cleanup.append(application.kill)

    def once():
        application.stdin.write(b"\n")
        assert application.stdout.readline() == b"done\n"

    once()
    assert served.settled(1, service="before") == 1
    with open(home + "/whatap.conf", "a") as file:
        file.write("app_name=after\n")
    user.says("from the next connection: app_name", home)
    once()
    assert served.settled(1, service="after") == 1
    application.stdin.close()
    assert application.wait(30) == 0


# --- who counts as a client

DAEMON = r"""
import os, sys, time
import whatap
@whatap.method_profiling
def work():
    pass
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.closerange(0, 256)
time.sleep(4)
work()
os.mkdir(sys.argv[1])
"""


def test_a_program_that_makes_itself_a_daemon_before_its_first_request_keeps_the_instance(served):
    home = home_of(served, conf=reports_to(served.server))      # lingers for a second
    user = User(served, home)
    done = served.path("done")
    did = user.run("whatap-start-agent", sys.executable, "-c", DAEMON, done, env={"WHATAP_APP_NAME": "daemon"})
    assert did.returncode == 0
    time.sleep(2.5)
    assert "no client left" not in user.logs(home)
    stack.wait_until("the daemon's end", lambda: os.path.isdir(done), 60)
    assert served.settled(1, service="daemon") == 1
