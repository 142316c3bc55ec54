# python: 3.13
import _interpreters
one = _interpreters.create('legacy')
_interpreters.run_string(one, "import sys, os; os.write(1, b'inside\\n')")
_interpreters.destroy(one)
print('over')
