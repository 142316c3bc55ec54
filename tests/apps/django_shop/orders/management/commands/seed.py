import datetime
import random

from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils import timezone

from orders.models import Customer, Line, Order, Product

CITIES = ['Seoul', 'Busan', 'Tokyo', 'Berlin', 'Lyon', 'Lima', 'Oslo', 'Accra']


class Command(BaseCommand):
    help = 'Fills an empty database with customers, products and orders.'

    def add_arguments(self, parser):
        parser.add_argument('--orders', type=int, default=400)

    def handle(self, *args, **options):
        if Order.objects.exists():
            self.stdout.write('already filled')
            return
        with transaction.atomic():
            fill(options['orders'])
        self.stdout.write('%d orders' % Order.objects.count())


def fill(count):
    rng = random.Random(7)
    Customer.objects.bulk_create(
        [Customer(name='customer %d' % i, city=rng.choice(CITIES)) for i in range(1, 61)])
    Product.objects.bulk_create(
        [Product(sku=i, name='article %d' % i, price=100 + i * 7 % 900) for i in range(1, 101)])
    customers = list(Customer.objects.all())
    products = list(Product.objects.all())
    now = timezone.now()
    Order.objects.bulk_create([
        Order(customer=rng.choice(customers), paid=rng.random() < 0.9, placed=now - datetime.timedelta(minutes=i))
        for i in range(count)])
    Line.objects.bulk_create([
        Line(order=order, product=rng.choice(products), amount=rng.randint(1, 5))
        for order in Order.objects.all() for _ in range(rng.randint(1, 4))])
