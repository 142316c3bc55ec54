WHO = 'my signal'
