from __future__ import print_function
import subprocess
import sys
print(int(subprocess.check_output([sys.executable, '-c', 'print(42)'])))
process = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stderr.write("err"); sys.stdout.write(sys.stdin.read()); sys.exit(6)'],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
print(process.communicate(b'in'), process.returncode)
print(subprocess.call('exit 9', shell=True))
first = subprocess.Popen(['yes'], stdout=subprocess.PIPE)
second = subprocess.Popen(['head', '-n', '1'], stdin=first.stdout, stdout=subprocess.PIPE)
first.stdout.close()
print(second.communicate()[0], first.wait())
