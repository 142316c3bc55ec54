# env: PYTHONPATH={here}/mine
print('the program runs')
