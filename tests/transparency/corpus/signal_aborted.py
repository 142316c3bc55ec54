import os
os.write(1, b'alive\n')
os.abort()
