"""For a WSGI server: `gunicorn textreport.wsgi:app`."""

from textreport import create_app

app = create_app()
