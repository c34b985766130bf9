"""Settings from the environment, as the role app gives it."""

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = os.environ["HOSTS"].split(",")
# The web server says how the visitor came
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
INSTALLED_APPS = ["django.contrib.staticfiles", "board"]
ROOT_URLCONF = "board.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STATIC_URL = "/static/"
# collectstatic fills it: app_static_folder
STATIC_ROOT = FOLDER / "staticfiles"
# A changed file gets another URL, so that browsers may keep each for good
STORAGES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}}
