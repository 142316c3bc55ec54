# python: 3.6
import importlib
import importlib.util
import pkgutil
import sys
for name in ('sqlite3', 'http.client', 'flask', 'json', 'threading'):
    try:
        spec = importlib.util.find_spec(name)
        print(name, spec and (spec.name, spec.origin, type(spec.loader).__name__, spec.submodule_search_locations))
    except Exception as error:
        print(name, type(error), error)
import json
import sqlite3
print(importlib.reload(json) is json, importlib.reload(sqlite3) is sqlite3)
print(sqlite3.connect(':memory:').execute('select 1').fetchall())
print(sum(1 for _ in pkgutil.iter_modules(['/nowhere'])), pkgutil.get_data('json', '__init__.py')[:3])
sys.modules.pop('sqlite3')
import sqlite3 as fresh
print(fresh is not sqlite3, fresh.connect(':memory:').execute('select 2').fetchall())
