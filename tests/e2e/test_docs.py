"""Every command block of README.md and docs/ is typed as printed, and what the documents say about texts, options and files is true.

A block is fenced with ```sh. The comment line right before it may say how to run it:
    <!-- run: until TEXT -->     it stays in the foreground: Ctrl-C once its output has TEXT; it must then end with 0
    <!-- run: in the background until TEXT -->     it goes on while the following blocks run
    <!-- run: exits N -->        its exit status
    <!-- run: not here, REASON -->
The blocks of one document run in order, in the checkout, as a user who has nothing: a home, data and cache directories of a scratch directory's.
"""
import errno
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
FENCED = re.compile(r"(?:<!-- run: .*? -->\n)?```\w*\n.*?```", re.S)
DOCUMENTS = [os.path.join(ROOT, "README.md")] + sorted(glob.glob(os.path.join(ROOT, "docs", "*.md")))
TRANSLATED = sorted(glob.glob(os.path.join(ROOT, "docs", "*", "*.md")))


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def blocks(document):
    return [(match["how"] or "", match["commands"]) for match in BLOCK.finditer(read(document))]


def table(text, first):
    """The first cells of the tables whose first heading is `first`."""
    found, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        inside = bool(cells) and (inside or cells[0] == first)
        if inside and cells[0] != first and not set(cells[0]) <= set("-"):
            found.append(cells[0])
    return found


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
    for document in DOCUMENTS + TRANSLATED:
        assert not re.search(r"```(bash|shell|console)\n", read(document)), document


@pytest.mark.parametrize("document", TRANSLATED, ids=lambda path: os.path.relpath(path, ROOT))
def test_a_translation_has_the_blocks_and_tables_of_its_original(document):
    """So its commands are those that are run above."""
    original, translation = read("docs", os.path.basename(document)), read(document)
    assert FENCED.findall(translation) == FENCED.findall(original)
    assert len(re.findall("^#", translation, re.M)) == len(re.findall("^#", original, re.M))
    assert len(re.findall(r"^\|", translation, re.M)) == len(re.findall(r"^\|", original, re.M))
    for english, korean in (("Line", "메시지"), ("Code", "코드"), ("Option", "옵션"), ("Exit status", "종료 상태")):
        assert table(translation, korean) == table(original, english)


def anchors(document):
    headings = re.findall("^#+ (.*)", FENCED.sub("", read(document)), re.M)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_links_lead_somewhere():
    for document in DOCUMENTS + TRANSLATED:
        for path, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", FENCED.sub("", read(document))):
            if "://" not in path:
                target = os.path.normpath(os.path.join(os.path.dirname(document), path)) if path else document
                assert os.path.exists(target), "%s: %s" % (document, path)
                assert not anchor or anchor in anchors(target), "%s: %s#%s" % (document, path, anchor)


def test_the_lines_that_are_explained_are_those_that_the_programs_print():
    """In troubleshoot.md, and in the doctor, which explains and translates lines of the others."""
    sources = glob.glob(os.path.join(ROOT, "crates", "*", "src", "**", "*.rs"), recursive=True) + glob.glob(
        os.path.join(ROOT, "bootstrap", "whatap", "**", "*.py"), recursive=True)
    doctor = os.path.join("crates", "whatap", "src", "doctor")
    printed = re.sub(r"\\\n\s*", "", "\n".join(read(path) for path in sources if doctor not in path))
    printed += os.strerror(errno.ENOENT)
    for arguments in ([], ["--hone", "true"]):
        # What the library that parses the command line says.
        done = subprocess.run([os.path.join(stack.binaries(), "whatap-start-agent")] + arguments, stderr=subprocess.PIPE, timeout=60)
        printed += done.stderr.decode()
    lines = table(read("docs", "troubleshoot.md"), "Line")
    lines += re.findall(r'\(\s*"(.*?)",\s*"', read(doctor, "lines.rs").partition("#[cfg(test)]")[0])
    lines += re.findall(r'(?:lasting|passing)\(\s*"(.*?)"', read(doctor, "logs.rs"))
    assert len(lines) > 100
    for line in lines:
        for part in re.split(r"[…:;]|\{\}", line.strip("`")):
            part = part.strip(" ()`")
            # A reason is put together where it is printed, and one of the system's begins with a capital.
            assert any(form in printed for form in (part, part.replace("it ", "", 1), part.capitalize())), "%s is printed nowhere: %s" % (line, part)


def test_options_and_variables_that_are_named_exist():
    options = read("docs", "options.md")
    for option in table(read("docs", "configure.md"), "Option"):
        assert "| %s" % option in options, option
    others = {"WHATAP_SERVER_DATA_DIR", "WHATAP_BATCH_HOME"}
    for document in ("install.md", "configure.md", "troubleshoot.md", "doctor.md"):
        for variable in set(re.findall(r"\bWHATAP_[A-Z_]+[A-Z]\b", read("docs", document))) - others:
            assert "`%s`" % variable in options, "%s: %s" % (document, variable)


class Place:
    """A user who has nothing configured and nothing running."""

    def __init__(self, scratch):
        self.background = []
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
        stays = how.startswith("in the background ")
        how = how[len("in the background "):] if stays else how
        until = how[6:].encode() if how.startswith("until ") else None
        output = tempfile.TemporaryFile()
        process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", commands], cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                                   # As at a terminal: whoever runs the tests in the background has it ignored.
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        if stays:
            self.background.append(process)
            return self.wait_for(process, output, until, commands)
        try:
            if until:
                self.wait_for(process, output, until, commands)
                time.sleep(1)
                os.killpg(process.pid, signal.SIGINT)
            if "scripts/demo" in commands and until:
                time.sleep(0.5)
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGINT)       # somebody who cannot wait: still everything is stopped
            status = process.wait(900)
            if "scripts/demo" in commands:
                assert not self.started(), self.started()
        finally:
            stack.end_group(process, 5)
        # A shell that is interrupted with its foreground program reports 130.
        assert status in ((expected, 130) if until else (expected,)), "%s\nexit %s:\n%s" % (commands, status, text(output))

    def wait_for(self, process, output, until, commands):
        deadline = time.monotonic() + 900
        while until not in text(output).encode():
            assert process.poll() is None, "%s\nended with %s:\n%s" % (commands, process.returncode, text(output))
            assert time.monotonic() < deadline, "%s\nnever printed %r:\n%s" % (commands, until, text(output))
            time.sleep(0.2)

    def started(self):
        """Command lines of processes that run for this user or lie in the demo's directory."""
        marks = b"HOME=" + self.environment["HOME"].encode(), os.path.join(ROOT, ".demo").encode()
        found = []
        for path in glob.glob("/proc/[0-9]*"):
            try:
                command, environment = [open(path + name, "rb").read() for name in ("/cmdline", "/environ")]
            except OSError:
                continue
            if marks[0] in environment.split(b"\0") or marks[1] in command:
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def close(self):
        subprocess.run([os.path.join(stack.binaries(), "whatap-stop-agent"), "--timeout", "5"], env=self.environment, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=30)
        for process in self.background:
            stack.end_group(process, 15)
        info = os.path.join(self.environment["WHATAP_SERVER_DATA_DIR"], "server.json")
        if os.path.exists(info):
            with open(info) as file:
                os.kill(json.load(file)["pid"], signal.SIGTERM)


def text(output):
    output.seek(0)
    return output.read().decode(errors="replace")
