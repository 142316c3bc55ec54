import sys
sys.stdout.write('modulo 256\n')
sys.exit(259)
