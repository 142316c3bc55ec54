WHO = 'my threading'
