WHO = 'my socket'
