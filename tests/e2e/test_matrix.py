"""The same exact counts on every interpreter that is found, in the environments of the instrumentation's tests."""
import importlib.util
import os

import pytest

from conftest import ROOT

spec = importlib.util.spec_from_file_location("instrument_run", os.path.join(ROOT, "tests", "instrument", "run.py"))
environments = importlib.util.module_from_spec(spec)
spec.loader.exec_module(environments)

FOUND = [version for version in environments.VERSIONS if environments.interpreter(version)]
FLASK = {"/": 3, "/stock/<int:sku>": 4, "/sql": 2, "/fail": 1, "/bad-sql": 1, "/thread": 1}
DJANGO = {"/health": 2, "/orders/<int:pk>/": 3, "/report": 1, "/fail": 1, "/stream": 1}
REGEX_ROUTES = {"/orders/<int:pk>/": "/orders/<pk>/"}
PATHS = {"/stock/<int:sku>": "/stock/5", "/orders/<int:pk>/": "/orders/5/"}


@pytest.mark.parametrize("version", FOUND)
def test_flask_and_django_on(version, served):
    envs = os.environ.get("WHATAP_TEST_ENVS") or os.path.join(ROOT, ".envs")
    python = environments.environment(version, environments.interpreter(version), envs, False)
    assert python, "no environment for Python %s" % version
    home = served.home()
    drive(served.flask(home, python=python), FLASK)
    drive(served.django(home, python=python), DJANGO)
    total = sum(FLASK.values()) + sum(DJANGO.values())
    assert served.settled(total) == total
    assert counted(served, "stock", FLASK) == FLASK
    # Django 1.11 knows only regular expressions: they are shown without their marks.
    routes = {(REGEX_ROUTES.get(name, name) if version == "2.7" else name): count for name, count in DJANGO.items()}
    assert counted(served, "shop", routes) == routes
    assert served.server.lost() == 0
    assert served.server.count(service="stock", status=500) == 1


def drive(application, counts):
    for name, count in counts.items():
        for _ in range(count):
            application.get(PATHS.get(name, name))


def counted(scene, service, names):
    return {name: scene.server.count(service=service, name=name) for name in names}
