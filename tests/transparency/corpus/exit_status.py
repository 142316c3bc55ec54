import sys
sys.stdout.write('before\n')
sys.exit(7)
