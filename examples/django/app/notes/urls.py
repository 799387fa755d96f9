"""/ lists the notes, /admin/ writes them, /healthz asks the database."""

import socket

from django.conf import settings
from django.contrib import admin
from django.http import HttpResponse, JsonResponse
from django.urls import path
from notes.models import Note

admin.site.site_header = settings.SITE_TITLE


def notes(request):
    texts = list(Note.objects.order_by("id").values_list("text", flat=True))
    return JsonResponse(
        {"title": settings.SITE_TITLE, "notes": texts, "task": socket.gethostname()}
    )


def healthz(request):
    Note.objects.exists()
    return HttpResponse("ok\n")


urlpatterns = [path("", notes), path("healthz", healthz), path("admin/", admin.site.urls)]
