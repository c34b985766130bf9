"""For Celery: `celery -A textreport.celery_app:celery worker` and `... beat`."""

from celery import Celery

from textreport import create_app
from textreport.queueing import EXTENSION

flask_app = create_app()
celery: Celery = flask_app.extensions[EXTENSION]
