import sys
sys.path.append('/added')
times = getattr(sys, 'times', 0) + 1
sys.times = times
sys.stdout.write('sitecustomize runs\n')
