"""`python -m whatap`: starts the agent as `whatap.agent()` does, and ends."""
import sys

from . import VERSION, _launch, agent

USAGE = 'usage: python -m whatap [-h | -V]\n\nStarts the agent of the home that WHATAP_HOME names, as whatap.agent() does, and ends.\n'


def main(words):
    """The exit status."""
    if words in (['-h'], ['--help']):
        sys.stdout.write(USAGE)
        return 0
    if words in (['-V'], ['--version']):
        sys.stdout.write('whatap %s\n' % VERSION)
        return 0
    if words:
        sys.stderr.write('whatap: unexpected argument %r; python -m whatap --help\n' % words[0])
        return 2
    agent()
    if _launch.launch is None:
        sys.stderr.write('whatap: no agent was started; whatap-doctor says why\n')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
