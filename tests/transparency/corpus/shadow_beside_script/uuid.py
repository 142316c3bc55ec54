WHO = 'my uuid'
