from __future__ import print_function
import subprocess
print(subprocess.Popen(['ls', '/proc/self/fd'], close_fds=False, stdout=subprocess.PIPE).communicate()[0])
print(subprocess.Popen(['ls', '/proc/self/fd'], close_fds=True, stdout=subprocess.PIPE).communicate()[0])
