import django

from orders import views

if django.VERSION >= (2, 0):
    from django.urls import path

    urlpatterns = [
        path('', views.index, name='index'),
        path('health', views.health),
        path('orders/', views.OrderList.as_view(), name='orders'),
        path('orders/<int:pk>/', views.order, name='order'),
        path('report', views.report),
        path('slow', views.slow),
        path('fail', views.fail),
        path('call-flask', views.call_flask),
        path('stream', views.stream),
        path('log', views.write_log),
    ]
else:
    from django.conf.urls import url

    urlpatterns = [
        url(r'^$', views.index, name='index'),
        url(r'^health$', views.health),
        url(r'^orders/$', views.OrderList.as_view(), name='orders'),
        url(r'^orders/(?P<pk>[0-9]+)/$', views.order, name='order'),
        url(r'^report$', views.report),
        url(r'^slow$', views.slow),
        url(r'^fail$', views.fail),
        url(r'^call-flask$', views.call_flask),
        url(r'^stream$', views.stream),
        url(r'^log$', views.write_log),
    ]

if django.VERSION >= (3, 1):
    from orders import async_views

    urlpatterns += [path('async', async_views.wait)]
