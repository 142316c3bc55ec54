"""Every command block of README.md and docs/*.md is typed as printed.

A block is fenced with ```sh. The comment line right before it may say how to run it:
    <!-- run: until TEXT -->     it stays in the foreground: Ctrl-C once its output has TEXT; it must then end with 0
    <!-- run: exits N -->        its exit status
    <!-- run: not here, REASON -->
The blocks of one document run in order, in the checkout, as a user who has nothing: a home, data and cache directories of a scratch directory's.
"""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from conftest import ROOT
import stack

BLOCK = re.compile(r"(?:<!-- run: (?P<how>.*?) -->\n)?```sh\n(?P<commands>.*?)```", re.S)
DOCUMENTS = [os.path.join(ROOT, "README.md")] + sorted(glob.glob(os.path.join(ROOT, "docs", "*.md")))


def blocks(document):
    with open(document, encoding="utf-8") as file:
        return [(match["how"] or "", match["commands"]) for match in BLOCK.finditer(file.read())]


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d)], ids=os.path.basename)
def test_the_commands_of(document):
    scratch = tempfile.mkdtemp(prefix="whatap-docs-")
    place = Place(scratch)
    try:
        for how, commands in blocks(document):
            if not how.startswith("not here, "):
                place.run(how, commands)
    finally:
        place.close()
        shutil.rmtree(scratch, ignore_errors=True)


def test_no_block_is_fenced_in_another_way():
    for document in DOCUMENTS:
        with open(document, encoding="utf-8") as file:
            assert not re.search(r"```(bash|shell|console)\n", file.read()), document


class Place:
    """A user who has nothing configured and nothing running."""

    def __init__(self, scratch):
        self.environment = stack.clean_environment(
            HOME=os.path.join(scratch, "user"), XDG_DATA_HOME=os.path.join(scratch, "user", "data"), XDG_CACHE_HOME=os.path.join(scratch, "user", "cache"),
            WHATAP_HOME=os.path.join(scratch, "user", "home"), WHATAP_SERVER_DATA_DIR=os.path.join(scratch, "user", "server"),
            STOCK_DB=os.path.join(scratch, "stock.sqlite3"), CARGO_HOME=os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo")),
            RUSTUP_HOME=os.environ.get("RUSTUP_HOME", os.path.expanduser("~/.rustup")), VIRTUAL_ENV=os.path.dirname(os.path.dirname(sys.executable)),
            PATH=stack.binaries() + os.pathsep + os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
        for name in ("HOME", "WHATAP_HOME"):
            os.makedirs(self.environment[name], exist_ok=True)

    def run(self, how, commands):
        expected = int(how[6:]) if how.startswith("exits ") else 0
        until = how[6:].encode() if how.startswith("until ") else None
        output = tempfile.TemporaryFile()
        process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", commands], cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                                   # As at a terminal: whoever runs the tests in the background has it ignored.
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        try:
            if until:
                self.interrupt_after(process, output, until, commands)
            status = process.wait(900)
        finally:
            stack.end_group(process, 5)
        # A shell that is interrupted with its foreground program reports 130.
        assert status in ((expected, 130) if until else (expected,)), "%s\nexit %s:\n%s" % (commands, status, text(output))

    def interrupt_after(self, process, output, until, commands):
        deadline = time.monotonic() + 900
        while until not in text(output).encode():
            assert process.poll() is None, "%s\nended with %s:\n%s" % (commands, process.returncode, text(output))
            assert time.monotonic() < deadline, "%s\nnever printed %r:\n%s" % (commands, until, text(output))
            time.sleep(0.2)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)

    def close(self):
        subprocess.run([os.path.join(stack.binaries(), "whatap-stop-agent"), "--timeout", "5"], env=self.environment, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=30)
        info = os.path.join(self.environment["WHATAP_SERVER_DATA_DIR"], "server.json")
        if os.path.exists(info):
            with open(info) as file:
                os.kill(json.load(file)["pid"], signal.SIGTERM)


def text(output):
    output.seek(0)
    return output.read().decode(errors="replace")
