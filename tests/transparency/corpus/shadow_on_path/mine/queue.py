WHO = 'my queue'
