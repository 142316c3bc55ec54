import sys
sys.stdout.write('usercustomize runs\n')
