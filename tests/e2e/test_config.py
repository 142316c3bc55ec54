"""One table of cases, tests/config/cases.json, against all who read options: the launcher, the tracer of every interpreter, the collector."""
import glob
import json
import os
import re
import socket
import subprocess
import sys
import urllib.parse

import pytest
import stack

with open(os.path.join(stack.ROOT, "tests", "config", "cases.json"), encoding="utf-8") as source:
    CASES = json.load(source)

# What the tracer has, as text.
TRACER = r"""
import json, sys
launch = sys.modules['whatap._launch']
def text(value):
    if value is True or value is False:
        return 'true' if value else 'false'
    return ','.join(value) if type(value) is tuple else value if isinstance(value, type(u'')) else str(value)
def decoded(value):
    return value.decode('utf-8') if isinstance(value, bytes) else value
options = dict((key, decoded(text(value))) for key, value in launch.options.items())
sys.stdout.write(json.dumps({'options': options, 'launch': decoded(launch.launch.text)}))
"""


def interpreters():
    """One of each version that is supported: pyenv's, else the one that runs the tests."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    found = {}
    for path in glob.glob(root + "/versions/*/bin/python"):
        version = re.search(r"/versions/((2\.7|3\.\d+))[.\d]*/", path)
        if version and (version.group(2) == "2.7" or int(version.group(2)[2:]) >= 3):
            found[version.group(2)] = path
    return sorted(found.values()) or [sys.executable]


class Home:
    """A home, a project beside it, and the instance that they lead to."""

    def __init__(self, scene, case):
        self.scene = scene
        self.directory = scene.path("home")
        self.work = scene.path("work")
        os.mkdir(self.directory, 0o755)
        os.mkdir(self.work, 0o755)
        self.env = dict(case.get("env", {}))
        self.set = [word for pair in case.get("set", []) for word in ("--set", pair)]
        self.write(case.get("conf"))
        if "project" in case:
            with open(os.path.join(self.work, "pyproject.toml"), "w") as file:
                file.write("[tool.whatap]\n" + case["project"])
            os.chmod(file.name, 0o644)
        scene.cleanup.append(lambda: self.run("whatap-stop-agent", "--timeout", "5", "--force"))

    def write(self, conf):
        path = os.path.join(self.directory, self.env.get("WHATAP_CONFIG", "whatap.conf"))
        if conf is None:
            if os.path.exists(path):
                os.remove(path)
            return
        with open(path + "~", "wb") as file:
            file.write(conf.encode("utf-8"))
        os.replace(path + "~", path)

    def command(self, program, *words):
        environment = stack.clean_environment(WHATAP_HOME=self.directory, WHATAP_LOCAL_SERVER="false", **self.env)
        return dict(args=[os.path.join(self.scene.binaries, program)] + list(words), env=environment, cwd=self.work)

    def run(self, program, *words):
        return subprocess.run(**self.command(program, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)

    def launch(self, *words, **more):
        return subprocess.Popen(**self.command("whatap-start-agent", *self.set, "--", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

    def ask(self, name, verb):
        """The answer of the instance, as a dictionary."""
        def answer():
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.settimeout(10)
                try:
                    connection.connect("\0" + name)
                    connection.send(verb.encode() + b"\n")
                    return connection.recv(65536).decode()
                except OSError:
                    return None
        lines = stack.wait_until("an answer to " + verb, answer).split("\n")
        assert lines[0] == "ok", lines
        return {key: urllib.parse.unquote(value) for key, _, value in (line.partition("=") for line in lines[1:]) if key}

    def log(self):
        text = ""
        for path in glob.glob(self.directory + "/logs/whatap-boot-*.log"):
            with open(path, encoding="utf-8", errors="replace") as file:
                text += file.read()
        return text


def pairs(launch):
    found = {}
    for pair in launch.split(";")[1:]:
        key, _, value = pair.partition("=")
        found[key.lstrip("!?")] = urllib.parse.unquote(value)
    return found


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_same_file_gives_the_same_values_everywhere(scene, case):
    home = Home(scene, case)
    tracers = [(python, home.launch(python, "-c", TRACER)) for python in interpreters()]
    said, names = b"", set()
    for python, process in tracers:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, (python, err)
        seen = json.loads(out.decode("utf-8"))
        for key, value in case["expect"].items():
            assert seen["options"].get(key, value) == value, (python, key)
        told = pairs(seen["launch"])
        for key, value in case["expect"].items():
            if key != "license":
                assert told.get(key, value) == value, (python, key, "launcher")
        assert "license" not in told
        names.add(told["_name"])
        said += err
    assert len(names) == 1
    options = home.ask(names.pop(), "options")
    assert {key: options[key] for key in case["expect"]} == case["expect"]
    # What is wrong is one line of the launcher at most, and all of it is in the log.
    for words in case.get("said", []):
        assert words in home.log(), home.log()
        assert said


@pytest.mark.parametrize("word, expected", [("True", "true"), ("1", "true"), ("yes", "true"), ("on", "true"), ("off", "false")])
def test_l25_a_truth_value_is_understood_by_every_component(scene, word, expected):
    home = Home(scene, {"conf": "trace_cpu=%s\n" % word, "env": {"WHATAP_TRANSACTION_STATUS_ERROR_ENABLE": word}})
    tracers = [home.launch(python, "-c", TRACER) for python in interpreters()]
    for process in tracers:
        seen = json.loads(process.communicate(timeout=60)[0].decode("utf-8"))
        options = seen["options"]
        assert (options["trace_cpu"], options["transaction_status_error_enable"]) == (expected, expected)
    options = home.ask(pairs(seen["launch"])["_name"], "options")
    assert (options["trace_cpu"], options["transaction_status_error_enable"]) == (expected, expected)


def test_l24_false_in_the_environment_leaves_debug_off(scene):
    home = Home(scene, {"env": {"debug": "false", "WHATAP_DEBUG": "false"}})
    seen = json.loads(home.launch(sys.executable, "-c", TRACER).communicate(timeout=60)[0].decode("utf-8"))
    assert seen["options"].get("debug", "false") == "false"
    assert home.ask(pairs(seen["launch"])["_name"], "options")["debug"] == "false"


def test_l30_two_files_for_one_process_cannot_happen(scene):
    home = Home(scene, {"env": {"WHATAP_CONFIG": "prod.conf"}, "conf": "profile_step_max_count=7\n"})
    with open(os.path.join(home.directory, "whatap.conf"), "w") as decoy:
        decoy.write("profile_step_max_count=8\n")
    process = home.launch(sys.executable, "-c", TRACER)
    seen = json.loads(process.communicate(timeout=60)[0])
    told = pairs(seen["launch"])
    expected = os.path.join(home.directory, "prod.conf")
    assert (seen["options"]["profile_step_max_count"], told["_config"]) == ("7", expected)
    options = home.ask(told["_name"], "options")
    assert (options["profile_step_max_count"], options["profile_step_max_count.source"]) == ("7", expected + ":1")
    assert "WA214 config loaded: " + expected in home.log()


APPLICATION = r"""
import sys
import whatap
launch = sys.modules['whatap._launch']
@whatap.method_profiling
def work():
    pass
sys.stdout.write(launch.launch.name + '\n'); sys.stdout.flush()
for line in iter(sys.stdin.readline, ''):
    work()
    sys.stdout.write('%s %s\n' % (launch.options['profile_step_max_count'], launch.options['ignore_instrumentation_set'])); sys.stdout.flush()
"""


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: path.split("/")[-3] if "/versions/" in path else "python")
def test_l23_a_change_reaches_a_running_application_and_a_removed_key_returns_to_its_default(scene, python):
    home = Home(scene, {"conf": "app_name=shop\n"})
    application = home.launch(python, "-c", APPLICATION, stdin=subprocess.PIPE, bufsize=0)
    scene.cleanup.append(application.kill)
    name = application.stdout.readline().decode().strip()

    def options():
        application.stdin.write(b"\n")
        return application.stdout.readline().decode().strip()

    def both(count, timeout=20):
        stack.wait_until("the tracer's option", lambda: options().split()[0] == count, timeout)
        assert home.ask(name, "options")["profile_step_max_count"] == count

    both("1000")
    home.write("app_name=shop\nprofile_step_max_count=7\nignore_instrumentation_set=redis\n")
    both("7")
    assert "in force now: profile_step_max_count" in home.log()
    assert "only after a restart of the application: ignore_instrumentation_set" in home.log()
    home.write("app_name=shop\n")
    both("1000")
    home.write(None)
    stack.wait_until("the default", lambda: home.ask(name, "options")["app_name"] == "")
    application.stdin.close()
    assert application.wait(30) == 0
