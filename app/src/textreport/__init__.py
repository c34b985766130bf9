"""Paste a text, get a report on it: the sample application."""

from __future__ import annotations

from flask import Flask, Response
from flask_wtf.csrf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix

from textreport import api, assets, cache, db, errors, health, logs, pages, queueing
from textreport.settings import Settings

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)


def create_app(settings: Settings | None = None) -> Flask:
    """Make the application from the environment, or from the given settings."""
    settings = settings or Settings.from_environment()
    logs.configure(settings.log_level)
    app = Flask(__name__)
    app.config.update(
        SETTINGS=settings,
        SECRET_KEY=settings.secret_key,
        SECRET_KEY_FALLBACKS=list(settings.secret_key_fallbacks),
        # the tokens of pages that are open follow the session's keys; the last one signs
        WTF_CSRF_SECRET_KEY=[*settings.secret_key_fallbacks, settings.secret_key],
        # four bytes a character, and room for the form around it; escaped JSON may need more and gets the 413
        MAX_CONTENT_LENGTH=max(1024 * 1024, settings.max_text_length * 4 + 16_384),
        MAX_FORM_MEMORY_SIZE=max(1024 * 1024, settings.max_text_length * 4 + 16_384),
        # The __Host- name binds the cookie to this host and to HTTPS.
        SESSION_COOKIE_NAME="__Host-textreport",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        WTF_CSRF_TIME_LIMIT=None,
        # the token in a __Host- cookie suffices; visitors whose browser sends no Referer are not locked out
        WTF_CSRF_SSL_STRICT=False,
    )
    logs.init_app(app)
    db.init_app(app, settings.database_url)
    cache.init_app(app, settings.cache_url, settings.redis_ca_file)
    queueing.celery_init_app(app, settings)
    assets.init_app(app)
    errors.init_app(app)
    health.init_app(app)
    app.register_blueprint(api.blueprint)
    app.register_blueprint(pages.blueprint)
    CSRFProtect(app).exempt(api.blueprint)

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response

    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    return app
