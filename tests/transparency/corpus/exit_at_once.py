import os
os.write(1, b'no cleanup\n')
os._exit(3)
