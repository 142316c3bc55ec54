"""The whole path: what an application does is what the server shows, exactly."""
import json
import os
import subprocess
import sys

import pytest

from conftest import APPS
import stack


def test_every_request_of_flask_is_stored_once(served):
    app = served.flask(served.home())
    sent = {"/": 5, "/stock/<int:sku>": 7, "/sql": 3, "/fail": 2, "/unreachable": 1, "/bad-sql": 1, "/thread": 2}
    paths = {"/stock/<int:sku>": "/stock/%d"}
    for name, count in sent.items():
        for i in range(count):
            app.get(paths[name] % (i + 1) if name in paths else name)
    assert served.settled(sum(sent.values())) == sum(sent.values())
    assert {name: served.server.count(name=name) for name in sent} == sent
    assert served.server.lost() == 0


def test_statements_are_shown_without_their_values(served):
    app = served.flask(served.home())
    assert app.get("/sql?n=5")[0] == 200
    served.settled(1)
    profile = only_profile(served, "/sql")
    statements = [step for step in profile["steps"] if step["kind"] == "sql"]
    assert sum(step["repeat"] for step in statements) == 5
    assert {step["text"] for step in statements} == {"SELECT amount FROM stock WHERE sku = ?"}
    assert {step["system"] for step in statements} == {"sqlite"}
    assert profile["transaction"]["sql_count"] == 5


def test_a_failure_shows_its_class_its_stack_and_the_source_line(served):
    app = served.flask(served.home())
    assert app.get("/fail")[0] == 500
    served.settled(1)
    error = only_profile(served, "/fail")["error"]
    assert error["class"].endswith("OutOfStock")
    assert error["message"] == "only 2 of article 404 left, 3 wanted"
    innermost = error["frames"][-1]
    assert innermost["function"] == "reserve" and innermost["file"].endswith("stock.py")
    assert innermost["source"].strip().startswith("raise OutOfStock(")


def test_a_handled_error_is_not_the_requests_error(served):
    app = served.flask(served.home())
    assert app.get("/bad-sql") == (200, b"handled: no such table: warehouse")
    served.settled(1)
    row = only_profile(served, "/bad-sql")
    assert row["transaction"]["outcome"] == "ok" and row["transaction"]["status"] == 200
    assert any(step["error"] and "no such table" in step["error"] for step in row["steps"])


def test_a_call_is_one_trace_over_django_and_flask(served):
    home = served.home()
    stock = served.flask(home)
    shop = served.django(home, env={"STOCK_URL": "http://127.0.0.1:%d" % stock.port})
    assert shop.get("/call-flask?sku=3")[0] == 200
    served.settled(2)
    caller = only_profile(served, "/call-flask")
    calls = [step for step in caller["steps"] if step["kind"] == "http"]
    assert len(calls) == 1 and calls[0]["status"] == 200
    trace = served.server.get("/api/v1/traces/" + caller["transaction"]["trace_id"])
    assert {t["service"] for t in trace["transactions"]} == {"shop", "stock"}
    callee = next(t for t in trace["transactions"] if t["service"] == "stock")
    assert callee["parent_id"] == calls[0]["span_id"] and calls[0]["callee"] == callee["id"]


def test_django_names_are_routes_and_errors_are_the_exceptions(served):
    app = served.django(served.home())
    assert [app.get("/orders/%d/" % pk)[0] for pk in (1, 2, 3)] == [200, 200, 200]
    assert app.get("/fail")[0] == 500
    assert app.get("/stream?rows=20")[0] == 200
    served.settled(5)
    assert served.server.count(name="/orders/<int:pk>/") == 3
    error = only_profile(served, "/fail")["error"]
    assert error["class"].endswith("PaymentError")
    assert [cause["class"] for cause in error["causes"]] == ["KeyError"]


def test_log_records_are_linked_to_the_request(served):
    app = served.django(served.home())
    assert app.get("/log")[0] == 200
    served.settled(1)
    stack.wait_until("the log records", lambda: only_profile(served, "/log")["logs"], 10)


def test_running_requests_are_seen_while_they_run(served):
    app = served.flask(served.home())
    waiting = subprocess.Popen([sys.executable, "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:%d/slow?seconds=6').read()" % app.port])
    try:
        rows = stack.wait_until("the running request", lambda: served.server.get("/api/v1/active")["rows"], 5)
        assert [row["name"] for row in rows] == ["GET /slow"]
        assert waiting.poll() is None
    finally:
        waiting.wait(20)
    served.settled(1)
    stack.wait_until("the end", lambda: not served.server.get("/api/v1/active")["rows"], 5)


def test_nothing_is_written_to_the_applications_output(served):
    home = served.home()
    bare = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=stack.clean_environment())
    traced = home.launch(sys.executable, "-c", PROGRAM)
    out, err = traced.communicate(timeout=30)
    assert (out, err, traced.returncode) == (bare.stdout, bare.stderr, bare.returncode)


PROGRAM = "import sys; print('out'); sys.stderr.write('err\\n'); sys.exit(7)"


def test_a_plain_wsgi_application_is_traced_through_register_app(served):
    home = served.home()
    served_dir = served.path("plain")
    os.mkdir(served_dir)
    with open(os.path.join(served_dir, "plain.py"), "w") as file:
        file.write("import whatap\n\n@whatap.register_app\ndef app(environ, start_response):\n"
                   "    start_response('200 OK', [('Content-Type', 'text/plain')])\n    return [b'plain']\n")
    app = stack.Application.gunicorn(sys.executable, served_dir, "plain:app", home, env={"WHATAP_APP_NAME": "plain"}, log=served.path("plain.log"))
    served.cleanup.append(app.stop)
    app.wait()
    assert app.get("/some/where/42") == (200, b"plain")
    assert served.settled(1) == 1
    assert served.server.transactions()[0]["name"] == "/some/where/{}"


def test_two_launches_share_one_instance_and_it_ends_after_the_last(served):
    home = served.home(agent_linger_sec=1)
    first, second = served.flask(home), served.django(home)
    assert first.get("/")[0] == second.get("/health")[0] == 200
    assert served.settled(2) == 2
    assert len(home.pids("whatap_python")) == 1
    first.stop()
    second.stop()
    stack.wait_until("the end of the instance", lambda: not home.pids("whatap_python") and not home.pids("whatap_watch"), 20)


def test_the_documented_queries_answer(served):
    app = served.flask(served.home())
    app.get("/stock/1")
    served.settled(1)
    assert served.server.query("count", "--since", "10m") == "1\n"
    assert served.server.query("lost", "--since", "10m") == "0\n"
    assert "/stock/<int:sku>" in served.server.query("transactions", "--format", "table")
    identity = served.server.transactions()[0]["id"]
    assert json.loads(served.server.query("transaction", identity, "--format", "json"))["transaction"]["id"] == identity
    served.server.stop()
    assert served.server.query("count") == "1\n"                     # a stopped server's files
    checked = subprocess.run([served.server.program, "check", "--data-dir", served.server.data_dir], stdout=subprocess.PIPE)
    assert checked.returncode == 0, checked.stdout


def only_profile(scene, name):
    rows = scene.server.transactions(name=name)
    assert len(rows) == 1, rows
    return scene.server.transaction(rows[0]["id"])


assert os.path.isdir(APPS)


def test_the_figures_of_processes_and_the_host_arrive(served):
    app = served.flask(served.home(), workers=2)

    def instance():
        for _ in range(6):
            assert app.get("/")[0] == 200
        found = [one for service in served.server.get("/api/v1/services") for one in service["instances"]]
        return found[0] if found and len(found[0]["pids"]) == 2 and all(found[0][name] is not None for name in NAMES) else None

    one = stack.wait_until("figures of both workers", instance, 30, 0.5)
    assert sorted(one["pids"]) == sorted(app.workers())
    pages = sum(int(open("/proc/%d/statm" % pid).read().split()[1]) for pid in one["pids"])
    assert one["memory_bytes"] == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.2)
    assert one["threads"] == sum(len(os.listdir("/proc/%d/task" % pid)) for pid in one["pids"])
    assert abs(one["fds"] - sum(len(os.listdir("/proc/%d/fd" % pid)) for pid in one["pids"])) <= 4
    assert 0 <= one["cpu"] < 2 and 0 <= one["host_cpu"] <= 1 and one["load1"] >= 0
    assert 0 < one["host_memory_bytes"] < one["host_memory_limit"]


NAMES = ("cpu", "memory_bytes", "threads", "fds", "host_cpu", "host_memory_bytes", "host_memory_limit", "load1")
