# command: sh -c '{python} -m venv --without-pip env && cp mine.pth env/lib/python3*/site-packages/ && exec env/bin/python main.py'
# python: 3.6
import sys
print(sys.seen)
