import os
os.write(1, b'ends it\n')
raise SystemExit(5)
