# python: 3.6
import logging
import sys
logging.basicConfig(stream=sys.stdout, format='%(name)s %(levelname)s %(message)s %(funcName)s %(lineno)d', level=logging.DEBUG)
print(sorted(logging.root.manager.loggerDict), logging.root.handlers, logging.getLoggerClass(), logging.getLogRecordFactory())


class Show(logging.Filter):
    def filter(self, record):
        print(sorted(vars(record)))
        return True


def work():
    logging.getLogger('mine').warning('%s and %s', 'one', 'two', extra={'three': 3})
    try:
        1 // 0
    except ZeroDivisionError:
        logging.exception('with traceback')


logging.getLogger('mine').addFilter(Show())
work()
logging.getLogger('mine').handle(logging.makeLogRecord({'msg': 'made by hand', 'levelno': 30}))
print(logging.lastResort, logging.raiseExceptions)
