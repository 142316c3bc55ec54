from django.db import models


class Customer(models.Model):
    name = models.CharField(max_length=80)
    city = models.CharField(max_length=80)


class Product(models.Model):
    sku = models.IntegerField(unique=True)
    name = models.CharField(max_length=80)
    price = models.DecimalField(max_digits=10, decimal_places=2)


class Order(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name='orders')
    placed = models.DateTimeField(db_index=True)
    paid = models.BooleanField(default=False)

    class Meta:
        ordering = ['-placed']

    def total(self):
        return sum(line.amount * line.product.price for line in self.lines.select_related('product'))


class Line(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name='lines')
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    amount = models.IntegerField()
