"""Django on PostgreSQL: statements once, connecting as one step."""
import logging
import os
import sys
import unittest

import postgres
import sink

sink.start()

arguments = postgres.address()
os.environ['DATABASE_URL'] = 'postgresql://%(user)s:%(password)s@%(host)s:%(port)s/%(dbname)s' % arguments
os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'
sys.path.insert(0, os.path.join(sink.APPS, 'django_shop'))
sys.dont_write_bytecode = True

from django.core import management  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

from wsgi_client import request  # noqa: E402

application = get_wsgi_application()
logging.getLogger().handlers = [logging.NullHandler()]
logging.getLogger('django').handlers = [logging.NullHandler()]


class Statements(sink.Traced):
    @classmethod
    def setUpClass(cls):
        management.call_command('migrate', verbosity=0)
        with open(os.devnull, 'w') as nowhere:
            management.call_command('seed', orders=30, stdout=nowhere)

    @classmethod
    def tearDownClass(cls):
        from django.db import connection
        with connection.cursor() as cursor:
            cursor.execute('DROP SCHEMA public CASCADE')
            cursor.execute('CREATE SCHEMA public')
        connection.close()

    def test_statements(self):
        from django.db import connection
        connection.close()
        place = '%(host)s:%(port)s/%(dbname)s' % arguments
        for first in (True, False):
            self.assertTrue(request(application, '/report?customers=4')[0].startswith('200'))
            frame = self.frame()
            self.assertNotIn(postgres.PASSWORD, repr(frame))
            steps = frame['steps']
            if first:
                self.assertEqual((steps[0]['kind'], steps[0]['a'], steps[0]['b']), ('dbc', place, 'postgresql'))
                del steps[0]
            self.assertEqual([(step['kind'], step['b'], step['c'], step['failed']) for step in steps], [('sql', 'postgresql', place, False)] * 5)
            self.assertEqual([step['value'] for step in steps], [4, 1, 1, 1, 1])

    def test_stream_with_a_server_side_cursor(self):
        request(application, '/stream?rows=7')
        self.assertEqual([step['kind'] for step in self.steps() if step['kind'] != 'dbc'], ['sql'])

    def test_database_away(self):
        from django.db import connection
        connection.close()
        port, connection.settings_dict['PORT'] = connection.settings_dict['PORT'], '1'
        try:
            self.assertTrue(request(application, '/')[0].startswith('500'))
        finally:
            connection.settings_dict['PORT'] = port
        frame = self.frame()
        self.assertEqual([(step['kind'], step['failed']) for step in frame['steps'] if step['kind'] != 'log'], [('dbc', True)])
        self.assertIn('OperationalError', frame['error_class'])
        self.assertNotIn(postgres.PASSWORD, repr(frame))


if __name__ == '__main__':
    unittest.main()
