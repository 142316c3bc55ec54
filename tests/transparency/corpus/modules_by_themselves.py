# python: 3.6
"""Modules that programs make and load without the import system's usual way."""
import importlib.util
import sys
import types
made = types.ModuleType('made')
exec('value = 5', vars(made))
sys.modules['made'] = made
from made import value
spec = importlib.util.spec_from_loader('late', loader=None)
module = importlib.util.module_from_spec(spec)
print(value, module, module.__spec__)


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == 'virtual':
            return importlib.util.spec_from_loader(name, Finder)

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        module.where = 'from a finder of my own'


sys.meta_path.insert(0, Finder)
import virtual
print(virtual.where, virtual.__spec__.loader is Finder)
sys.meta_path.remove(Finder)
lazy = importlib.util.find_spec('sqlite3')
lazy.loader = importlib.util.LazyLoader(lazy.loader)
sys.modules.pop('sqlite3', None)
module = importlib.util.module_from_spec(lazy)
sys.modules['sqlite3'] = module
lazy.loader.exec_module(module)
import sqlite3
print(sqlite3.connect(':memory:').execute('select 1').fetchall())
