WHO = 'my random'
