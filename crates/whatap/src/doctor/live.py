import sys
whatap = sys.modules.get('whatap')
if whatap is None:
    sys.stdout.write('untraced\n')
else:
    tx = __import__('whatap.tx', None, None, ['tx'])

    @whatap.method_profiling
    def whatap_doctor():
        pass

    whatap_doctor()
    ring = tx._ring
    ring.flush(int(sys.argv[1]))
    if ring.mapping is None:
        sys.stdout.write('no ring\n')
    else:
        lost = sum([ring.words[at] for at in range(26, 31)])
        sys.stdout.write('ring %016x ended %d lost %d\n' % (ring.id, ring.words[24], lost))
