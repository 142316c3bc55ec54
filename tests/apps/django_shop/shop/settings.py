import os

try:
    from urllib.parse import parse_qs, unquote, urlsplit
except ImportError:  # Python 2.7
    from urllib import unquote
    from urlparse import parse_qs, urlsplit

BASE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

SECRET_KEY = os.environ.get('DJANGO_SECRET_KEY', 'only for the sample application')
DEBUG = os.environ.get('DJANGO_DEBUG') == '1'
ALLOWED_HOSTS = ['*']

INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth', 'django.contrib.sessions', 'orders']
MIDDLEWARE = [
    'django.middleware.security.SecurityMiddleware',
    'django.contrib.sessions.middleware.SessionMiddleware',
    'django.middleware.common.CommonMiddleware',
    'django.middleware.csrf.CsrfViewMiddleware',
    'django.contrib.auth.middleware.AuthenticationMiddleware',
]
ROOT_URLCONF = 'shop.urls'
WSGI_APPLICATION = 'shop.wsgi.application'
TEMPLATES = [{'BACKEND': 'django.template.backends.django.DjangoTemplates', 'APP_DIRS': True}]
APPEND_SLASH = False
USE_TZ = True
TIME_ZONE = 'UTC'
LANGUAGE_CODE = 'en'
DEFAULT_AUTO_FIELD = 'django.db.models.AutoField'

LOGGING = {
    'version': 1,
    'disable_existing_loggers': False,
    'handlers': {'console': {'class': 'logging.StreamHandler'}},
    'root': {'handlers': ['console'], 'level': 'INFO'},
    'loggers': {'orders': {'level': 'DEBUG'}},
}

STOCK_URL = os.environ.get('STOCK_URL', 'http://127.0.0.1:8001')


def database(url):
    parts = urlsplit(url)
    if parts.scheme == 'sqlite':
        return {'ENGINE': 'django.db.backends.sqlite3', 'NAME': parts.path[1:], 'OPTIONS': {'timeout': 30}}
    if parts.scheme in ('postgres', 'postgresql'):
        return {
            'ENGINE': 'django.db.backends.postgresql',
            'NAME': unquote(parts.path[1:]),
            'USER': unquote(parts.username or ''),
            'PASSWORD': unquote(parts.password or ''),
            'HOST': parse_qs(parts.query).get('host', [parts.hostname or ''])[0],
            'PORT': str(parts.port or ''),
            'CONN_MAX_AGE': 60,
        }
    raise ValueError('DATABASE_URL must begin with sqlite:// or postgresql://')


DATABASES = {
    'default': database(os.environ.get('DATABASE_URL', 'sqlite:///' + os.path.join(BASE_DIR, 'shop.sqlite3'))),
}
