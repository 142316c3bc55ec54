"""The tracer's syntax and the library functions that it uses exist on the oldest Python that it is meant for: 2.7 and 3.3."""
import ast
import os
import subprocess
import sys

import pytest

from conftest import ROOT

PACKAGE = os.path.join(ROOT, "bootstrap", "whatap")
# Files that are imported only where they can be read, and since when that is.
NEWER = {
    "_generators.py": "3.3",
    "_batch_async.py": "3.5",
    "instrument/_methods_generator.py": "3.3",
    "instrument/_methods_async.py": "3.5",
    "instrument/_asgi.py": "3.5",
    "instrument/_methods_asyncgen.py": "3.6",
    "instrument/_psycopg_async.py": "3.6",
}
# Says which version it runs on before it uses anything of it: only its syntax can be looked at.
CHOOSES = "_compat.py"
OLDEST_GRAMMAR = (3, 4)  # what this Python can still read; 2.7 itself reads the files in tests/python


def files():
    found = []
    for directory, _, names in os.walk(PACKAGE):
        found += [os.path.relpath(os.path.join(directory, name), PACKAGE) for name in names if name.endswith(".py")]
    return sorted(found)


def vermin(targets, names):
    pytest.importorskip("vermin")
    options = ["-t=%s-" % target for target in targets]
    program = "import vermin; vermin.main()"
    return subprocess.run([sys.executable, "-c", program, "--no-tips", "--violations", "--processes=1"] + options + names, cwd=PACKAGE,
                          stdout=subprocess.PIPE, universal_newlines=True)


def test_every_file_but_the_named_ones_runs_on_2_7_and_3_3():
    names = [name for name in files() if name not in NEWER and name != CHOOSES]
    assert len(names) > 30
    done = vermin(["2.7", "3.3"], names)
    assert done.returncode == 0, done.stdout


def test_the_named_files_run_where_they_are_imported():
    for name, since in NEWER.items():
        done = vermin([since], [name])
        assert done.returncode == 0, done.stdout


def test_what_chooses_by_version_can_be_read_by_all():
    with open(os.path.join(PACKAGE, CHOOSES)) as file:
        ast.parse(file.read(), feature_version=OLDEST_GRAMMAR)


def test_the_tool_notices_what_is_too_new(tmp_path):
    new = tmp_path / "new.py"
    new.write_text("print(f'{1}')\n")
    done = vermin(["2.7", "3.3"], [str(new)])
    assert done.returncode != 0 and "f-strings require" in done.stdout
