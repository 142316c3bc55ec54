import sqlite3
import sys
import threading

import pytest


def test_good(tmp_path, capsys):
    print('captured')
    assert capsys.readouterr().out == 'captured\n'
    assert sqlite3.connect(str(tmp_path / 'x')).execute('select 1').fetchone() == (1,)


def test_bad():
    value = [1, 2]
    assert value == [1, 3]


def test_warns():
    with pytest.warns(UserWarning):
        import warnings
        warnings.warn('x')


def test_logs(caplog):
    import logging
    logging.getLogger('x').error('one %d', 1)
    assert caplog.record_tuples == [('x', 40, 'one 1')]
