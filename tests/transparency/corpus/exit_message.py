import sys
sys.exit('a message is the status 1')
