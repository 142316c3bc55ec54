"""Functions of the program's own script that the options name. It is not imported, so the finder does not see it: its
module's code is traced, line by line, until all of them are there. Nothing is installed for other programs.
"""
import sys

from . import guard, hooks

_GENERIC = '<generic parameters of '


def watch():
    """Waits for the script's code to run. Leaves a debugger or a coverage tool that is at work alone."""
    if sys.gettrace() is None:
        sys.settrace(_on_call)


def _on_call(frame, event, argument):
    try:
        code = frame.f_code
        if code.co_name == '<module>' and frame.f_globals.get('__name__') == '__main__':
            return _Script(_defined_in(code)).on_line
    except BaseException:
        if not guard.ours():
            raise


class _Script(object):
    """What is still missing of the functions and classes that the script defines."""

    def __init__(self, missing):
        self._missing = missing

    def on_line(self, frame, event, argument):
        try:
            known = self._missing.intersection(frame.f_globals)
            if known:
                self._missing -= known
                hooks.ran('__main__', sys.modules['__main__'])
            # The script may have begun to trace itself.
            is_ours = sys.gettrace() is _on_call
            if self._missing and event != 'return' and is_ours:
                return self.on_line
            if is_ours:
                sys.settrace(None)
            # A frame that has one tells the line that was traced last, not the one that runs.
            frame.f_trace = None
        except BaseException:
            if not guard.ours():
                raise


def _defined_in(code):
    """Names that a pattern may begin with: those of functions and classes; any that is stored under, if it is named."""
    named = hooks.patterns('method') + hooks.patterns('service')
    wanted = set([target.partition('.')[0] for module, target in named if module == '__main__'])
    defined = [getattr(constant, 'co_name', '') for constant in code.co_consts]
    defined = set([name[len(_GENERIC):-1] if name.startswith(_GENERIC) else name for name in defined])
    if '*' in wanted:
        return set([name for name in defined if name and not name.startswith('<')]) | wanted.intersection(code.co_names)
    return wanted.intersection(code.co_names)
