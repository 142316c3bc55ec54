from django.db import migrations, models
import django.db.models.deletion


def identity():
    return models.AutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel('Customer', [
            ('id', identity()),
            ('name', models.CharField(max_length=80)),
            ('city', models.CharField(max_length=80)),
        ]),
        migrations.CreateModel('Product', [
            ('id', identity()),
            ('sku', models.IntegerField(unique=True)),
            ('name', models.CharField(max_length=80)),
            ('price', models.DecimalField(decimal_places=2, max_digits=10)),
        ]),
        migrations.CreateModel('Order', [
            ('id', identity()),
            ('placed', models.DateTimeField(db_index=True)),
            ('paid', models.BooleanField(default=False)),
            ('customer', models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name='orders', to='orders.Customer')),
        ], options={'ordering': ['-placed']}),
        migrations.CreateModel('Line', [
            ('id', identity()),
            ('amount', models.IntegerField()),
            ('order', models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name='lines', to='orders.Order')),
            ('product', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to='orders.Product')),
        ]),
    ]
