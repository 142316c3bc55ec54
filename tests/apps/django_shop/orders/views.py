import logging
import time

import requests
from django.conf import settings
from django.db.models import DecimalField, F, Sum
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.generic import ListView

from orders.models import Customer, Line, Order

log = logging.getLogger(__name__)


class PaymentError(Exception):
    pass


def index(request):
    newest = Order.objects.select_related('customer')[:10]
    return render(request, 'orders/index.html', {'count': Order.objects.count(), 'orders': newest})


def health(request):
    return HttpResponse('ok')


class OrderList(ListView):
    queryset = Order.objects.select_related('customer')
    template_name = 'orders/index.html'
    context_object_name = 'orders'
    paginate_by = 25


def order(request, pk):
    found = get_object_or_404(Order.objects.select_related('customer'), pk=pk)
    return JsonResponse({'order': found.pk, 'customer': found.customer.name, 'total': str(found.total())})


def report(request):
    count = min(int(request.GET.get('customers', 20)), 60)
    rows = []
    for customer in Customer.objects.order_by('name')[:count]:
        turnover = Line.objects.filter(order__customer=customer).aggregate(
            turnover=Sum(F('amount') * F('product__price'), output_field=DecimalField()))['turnover']
        rows.append({'customer': customer.name, 'turnover': str(turnover or 0)})
    return JsonResponse({'rows': rows})


def slow(request):
    time.sleep(min(float(request.GET.get('seconds', 0.7)), 30))
    return HttpResponse('done')


def fail(request):
    charge({'card': 'declined'})
    return HttpResponse('paid')


def charge(answer):
    try:
        return answer['receipt']
    except KeyError as error:
        refused = PaymentError('the bank sent no receipt')
        refused.__cause__ = error  # `raise ... from` needs Python 3
        raise refused


def call_flask(request):
    try:
        answer = requests.get('%s/stock/%d' % (settings.STOCK_URL, int(request.GET.get('sku', 1))), timeout=10)
        answer.raise_for_status()
    except requests.RequestException as error:
        log.warning('stock service: %s', type(error).__name__)
        return JsonResponse({'error': 'stock service does not answer'}, status=502)
    return JsonResponse({'stock': answer.json()})


def stream(request):
    count = min(int(request.GET.get('rows', 100)), 10000)
    return StreamingHttpResponse(csv(count), content_type='text/csv')


def csv(count):
    yield 'order,customer,paid\n'
    for found in Order.objects.select_related('customer')[:count].iterator():
        yield '%d,%s,%s\n' % (found.pk, found.customer.name, found.paid)


def write_log(request):
    log.debug('looking for late orders')
    log.info('3 orders are late')
    log.warning('order %d is 4 days late', 17)
    try:
        charge({})
    except PaymentError:
        log.exception('order %d cannot be charged', 17)
    return HttpResponse('written')
