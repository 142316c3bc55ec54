WHO = 'my typing'
