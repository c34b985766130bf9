"""A page, a static file and a table, for every server that runs WSGI or ASGI applications."""

import time

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.templatetags.static import static
from django.urls import path

from board.models import Note


def page(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"notes": Note.objects.count(), "static": request.build_absolute_uri(static("board/site.css"))})


def nap(request: HttpRequest) -> HttpResponse:
    # A request in progress, for the tests to stop the server under
    time.sleep(1)
    return HttpResponse("rested")


urlpatterns = [
    path("", page),
    path("nap", nap),
    path("healthz", lambda request: HttpResponse("fine")),
]
