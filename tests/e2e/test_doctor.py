"""The doctor, on the whole path: a real server, a real interpreter, and servers that are not what they seem."""
import hashlib
import hmac
import http.server
import json
import os
import subprocess
import sys
import threading
import time

import pytest

import stack

OTHER_LICENCE = "x21og000g40o4-xa1g7104gk2oc-xq3gf00000000"


def examine(home, *arguments):
    """(report, exit status)"""
    done = subprocess.run([os.path.join(home.binaries, "whatap-doctor"), "--json"] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=home.environment(LANG="C"), timeout=120)
    assert done.stderr == b""
    return json.loads(done.stdout), done.returncode


def found(report, finding):
    checks = [check for check in report["checks"] if check["finding"] == finding]
    assert checks, "no %s in %s" % (finding, json.dumps(report["checks"], indent=1))
    return checks[0]


def complaints(report):
    """What is not good, but for the disk of this machine."""
    return [check for check in report["checks"] if check["state"] != "good" and check["finding"] != "spool_disk_short"]


def test_one_live_transaction_goes_all_the_way(served):
    home = served.home()
    report, _ = examine(home, "--live", "60", sys.executable, "-c", "pass")
    assert "acknowledged" in found(report, "live_good")["text"]
    assert found(report, "server_good")["state"] == "good"
    assert found(report, "clock_good")["state"] == "good"
    assert found(report, "licence_good")["state"] == "good"
    assert complaints(report) == []
    assert served.server.count() == 1


@pytest.mark.parametrize("version", ["2.7.18", "3.6.15", "3.13.0"])
def test_the_interpreter_of_the_command_does_it(served, version):
    python = os.path.expanduser("~/.pyenv/versions/%s/bin/python" % version)
    if not os.path.exists(python):
        pytest.skip("no Python " + version)
    report, _ = examine(served.home(), "--live", "60", python, "x.py")
    assert found(report, "python_good")["text"].endswith("Python " + version.rpartition(".")[0])
    assert found(report, "live_good")
    assert served.server.count() == 1


def test_a_licence_that_the_server_does_not_know_is_mended_by_the_printed_command(served):
    home = served.home(license=OTHER_LICENCE)
    path = os.path.join(home.directory, "whatap.conf")
    with open(path) as file:
        lines = [line for line in file if not line.startswith("license=" + served.server.licence)]
    with open(path, "w") as file:
        file.writelines(lines)
    report, status = examine(home)
    assert status == 2
    fix = found(report, "server_unknown_licence")["fix"]
    subprocess.run(["sh", "-ec", fix], env=home.environment(WHATAP_SERVER_DATA_DIR=served.server.data_dir), check=True, timeout=60,
                   stdout=subprocess.DEVNULL)
    report, _ = examine(home)
    assert found(report, "server_good") and complaints(report) == []


def test_a_server_that_is_down_is_refused_and_the_live_transaction_waits(served):
    home = served.home()
    served.server.stop()
    report, status = examine(home, "--live", "5")
    assert status == 2
    assert found(report, "server_refused")
    assert "connection refused" in found(report, "live_not_acknowledged")["text"]
    # Nothing is lost by that: it goes out as soon as somebody takes it.
    served.server.start()
    assert served.settled(1, timeout=90) == 1


def test_one_server_of_several_that_answers_is_enough(served):
    home = served.home(whatap__server__host="127.0.0.1:1,127.0.0.1:%d" % served.server.agents_port)
    path = os.path.join(home.directory, "whatap.conf")
    with open(path) as file:
        lines = [line for line in file if line not in ("whatap.server.host=127.0.0.1\n",)]
    with open(path, "w") as file:
        file.writelines(lines)
    report, status = examine(home)
    assert found(report, "server_good") and status == 1
    assert complaints(report) == [found(report, "server_refused")]


class Double(http.server.BaseHTTPRequestHandler):
    """A server that knows the licence and shows another clock, or only claims to know it."""
    licence, ahead, honest = OTHER_LICENCE, 0, True

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        nonce = "00112233445566778899aabbccddeeff"
        text = b"server\0" + asked["nonce"].encode() + b"\0" + nonce.encode()
        key = self.licence if self.honest else "guessed"
        proof = hmac.new(key.encode(), text, hashlib.sha256).hexdigest()
        now = int((time.time() + self.ahead) * 1e6)
        body = json.dumps({"nonce": nonce, "proof": proof, "server": "9.9.9", "now_us": now}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("ahead,honest,finding,state", [
    (0, True, "clock_good", "good"), (100, True, "clock_behind", "warning"), (-100, True, "clock_ahead", "warning"),
    (0, False, "server_false", "failure")])
def test_clocks_and_claims_of_a_server_are_checked(scene, ahead, honest, finding, state):
    handler = type("Double", (Double,), {"ahead": ahead, "honest": honest})
    double = http.server.HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=double.serve_forever, daemon=True).start()
    try:
        home = stack.Home(scene.binaries, scene.path("home"), license=OTHER_LICENCE, whatap__server__host="127.0.0.1:%d" % double.server_port)
        report, status = examine(home)
        check = found(report, finding)
        assert check["state"] == state and (status == 2) == (state == "failure")
        assert complaints(report) == [check for check in [check] if state != "good"]
        if ahead:
            assert "100 s" in check["text"] or "99 s" in check["text"], check
    finally:
        double.shutdown()
        double.server_close()
