import logging
logging.getLogger('mine').warning('to stderr, once')
logging.getLogger('mine').info('to nobody')
