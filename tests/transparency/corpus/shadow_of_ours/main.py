"""Names that our files have, too."""
from __future__ import print_function
import errors, guard, hooks, ring, tx, wire
print([module.__file__.rsplit('/', 1)[1].rstrip('c') for module in (errors, guard, hooks, ring, tx, wire)])
