# fails: on some versions
# env: PYTHONPATH={here}/mine
print('the program does not run')
