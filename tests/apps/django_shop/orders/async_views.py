"""Needs Python 3 and Django 3.1."""
import asyncio

from django.http import JsonResponse


async def wait(request):
    seconds = min(float(request.GET.get('seconds', 0.05)), 30)
    await asyncio.gather(asyncio.sleep(seconds), asyncio.sleep(seconds / 2))
    return JsonResponse({'waited': seconds})
