WHO = 'my token'
